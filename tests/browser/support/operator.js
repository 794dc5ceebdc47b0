// What an operator sees and asks of a door, over its admin API.

import assert from "node:assert/strict";
import { until } from "./until.js";

/** Speaks to the admin API of a door that has `admin`, its address. */
export class Operator {
  constructor(door) {
    this.door = door;
  }

  async ask(method, path, body) {
    const answer = await fetch(`${this.door.admin}${path}`, {
      method,
      ...(body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    const text = await answer.text();
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
    return text && (answer.headers.get("content-type") ?? "").includes("json") ? JSON.parse(text) : text;
  }

  /** The only node that has legs of this kind. */
  async home(kind) {
    return until(`one node has all ${kind} legs`, async () => {
      const { nodes } = await this.ask("GET", "/v1/nodes");
      const having = nodes.filter(({ legs }) => legs[kind] > 0).map(({ id }) => id);
      if (having.length === 1) return having[0];
      throw new Error(having.join(", "));
    });
  }

  /** How many gaps of a kind were measured, and their mean in seconds. */
  async gaps(kind) {
    const text = await this.ask("GET", "/metrics");
    const value = (suffix) =>
      Number(new RegExp(`^forebay_migration_${kind}_gap_seconds_${suffix} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
    return { count: value("count"), mean: value("sum") / Math.max(1, value("count")) };
  }
}

// The admin API: calls with the token, problems as errors, and the stream of events.

const KEY = "forebay.token";
const GIVE_UP_MS = 15_000;
const AGAIN_MS = 2_000;

/** What the API refused, as RFC 9457 problem details say it. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `status ${status}`);
    this.status = status;
    this.code = problem?.code;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
};

function headers(more = {}) {
  return token.get() ? { ...more, Authorization: `Bearer ${token.get()}` } : more;
}

/** Asks the API; resolves with the body, rejects with `Refused`, or with another error if nobody answers. */
export async function ask(path, { method = "GET", body } = {}) {
  const answer = await fetch(path, {
    method,
    headers: headers(body ? { "Content-Type": "application/json" } : {}),
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(GIVE_UP_MS),
  });
  const isJson = /json/.test(answer.headers.get("Content-Type") ?? "");
  const json = isJson ? await answer.json() : null;
  if (!answer.ok) throw new Refused(answer.status, json);
  return json;
}

/** All pages of a list, at most `most` rows; says whether there are more. */
export async function list(path, field, most) {
  const rows = [];
  let next = null;
  do {
    const left = Math.min(most - rows.length, 1000);
    const join = path.includes("?") ? "&" : "?";
    const cursor = next ? `&cursor=${encodeURIComponent(next)}` : "";
    const page = await ask(`${path}${join}limit=${left}${cursor}`);
    rows.push(...page[field]);
    next = page.next;
  } while (next && rows.length < most);
  return { rows, more: next !== null };
}

/** Listens to events for ever: `heard(name, data)` for each, `state("good" | "wait")` as the connection comes and goes. */
export async function listen(heard, state) {
  for (;;) {
    try {
      // Not EventSource: that cannot send a token.
      const answer = await fetch("/v1/events", { headers: headers() });
      if (!answer.ok) throw new Refused(answer.status);
      state("good");
      await read(answer.body, heard);
    } catch {
      // The next round says it.
    }
    state("wait");
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

async function read(stream, heard) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const [name, data] = [field("event"), field("data")];
      if (name && data) heard(name, JSON.parse(data));
    }
  }
}

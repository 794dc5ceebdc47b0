// Waiting, the one way these tests do it: look, look again, and give up at a stated deadline.

const LOOK_EVERY_MS = 100;

/**
 * Resolves with the first truthy value that `look` returns. After `withinMs` it rejects with `what` and with what
 * `look` saw or threw last.
 */
export async function until(what, look, { withinMs = 20_000 } = {}) {
  const deadline = performance.now() + withinMs;
  for (;;) {
    let seen;
    try {
      seen = await look();
      if (seen) return seen;
    } catch (error) {
      seen = error;
    }
    if (performance.now() > deadline) {
      throw new Error(`not within ${withinMs} ms: ${what} (last seen: ${describe(seen)})`);
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

/** Rejects with `what` unless `promise` settles within `withinMs`. */
export async function within(withinMs, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${withinMs} ms: ${what}`)), withinMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function describe(seen) {
  return seen instanceof Error ? seen.message : JSON.stringify(seen);
}

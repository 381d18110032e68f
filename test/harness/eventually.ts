/** Thrown while polling when there is no point in waiting on. */
export class GaveUp extends Error {}

/**
 * Polls until `look` gives something else than undefined or false. What it throws counts as not yet.
 * @param what completes "waited in vain for ..."; the time is for a machine that does eight things at once
 */
export async function eventually<T>(
  what: string,
  look: () => T | Promise<T>,
  { withinMs = 30_000, everyMs = 50 } = {},
): Promise<Exclude<T, undefined | false>> {
  const deadline = Date.now() + withinMs;
  let last: unknown;
  for (;;) {
    try {
      const found = await look();
      if (found !== undefined && found !== false) return found as Exclude<T, undefined | false>;
      last = found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline || last instanceof GaveUp) {
      const seen = last instanceof Error ? last.message : String(last);
      const waited = Math.round(Date.now() - deadline + withinMs);
      throw new Error(`waited ${waited} ms in vain for ${what}; at the end: ${seen}`, { cause: last });
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

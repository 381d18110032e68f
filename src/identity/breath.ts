/**
 * Asked between the small steps of long work: undefined while this turn of the event loop may go on, else a promise of
 * the next turn.
 */
export type Breathe = () => Promise<void> | undefined;

/**
 * Runs work to its end, over as many turns as it takes.
 * @param mayGoOn asked once a turn; when it says no the rest is left undone
 * @returns what the work returns, or undefined when it was left
 */
export async function inBreaths<T>(
  steps: Generator<void, T>,
  breathe: Breathe,
  mayGoOn: () => boolean = () => true,
): Promise<T | undefined> {
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done === true) return step.value;
    const next = breathe();
    if (next === undefined) continue;
    await next;
    if (!mayGoOn()) return undefined;
  }
}

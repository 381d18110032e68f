/**
 * Work in small steps, so that whoever runs it may let others run in between. A step takes well under a millisecond:
 * some {@link rulesInStep} rules.
 */
export type Steps<T> = Generator<void, T>;

/** Does all steps at once. */
export function finish<T>(steps: Steps<T>): T {
  for (let step = steps.next(); ; step = steps.next()) if (step.done === true) return step.value;
}

/** After this many rules a step ends. */
export const rulesInStep = 8;

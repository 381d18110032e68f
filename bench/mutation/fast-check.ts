import * as real from '../../node_modules/fast-check/lib/fast-check.js';

/**
 * What the tests get for `fast-check` here: one seed, so that two runs give one score, and fewer runs of each property than
 * in the gate, because they are repeated for every mutant. What is noticed so is noticed in the gate as well.
 */
const fewer: typeof real.assert = ((
  property: real.IProperty<unknown>,
  parameters?: real.Parameters<unknown>,
) =>
  real.assert(property, {
    ...parameters,
    seed: 1,
    numRuns: Math.min(maxRuns, parameters?.numRuns ?? maxRuns),
  })) as typeof real.assert;

const maxRuns = 15;

const fc = { ...real, assert: fewer };
export default fc;

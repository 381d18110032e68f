import { MeshError } from '../errors.ts';
import { mostNewDenials, type Rollout, type StagedRollout } from '../identity/rollout.ts';
import type * as wire from '../wire/node.ts';
import { policyFromWire, policyToWire } from './policy-wire.ts';
import { dateOf, integerOf } from './wire-values.ts';

/** What an agent says it understands, when it understands rollouts. */
export const rolloutCapability = 'policy_rollout';

/** A rollout as it travels. */
export function rolloutToWire({ state, changes }: StagedRollout): wire.PolicyRollout {
  return {
    id: state.id,
    base: BigInt(state.base),
    step: BigInt(state.step),
    stage: state.stage,
    percent: BigInt(state.percent),
    maxNewDenials: BigInt(state.maxNewDenials),
    candidate: state.candidate,
    timeMs: BigInt(state.time.getTime()),
    recordSha256: state.recordSha256,
    publicKey: Buffer.from(state.publicKey, 'base64'),
    signature: Buffer.from(state.signature, 'base64'),
    putPolicies: changes.put.map(policyToWire),
    deletePolicies: [...changes.deleted],
  };
}

/** One that was sent; whether it is true is for `policy-guard.ts` to say. @throws MeshError `view_invalid` */
export function rolloutFromWire(sent: wire.PolicyRollout): StagedRollout {
  const [base, step] = [integerOf(sent.base, 'a number'), integerOf(sent.step, 'a number')];
  const percent = integerOf(sent.percent, 'a share');
  const maxNewDenials = integerOf(sent.maxNewDenials, 'a count');
  const stage = stages.find((known) => known === sent.stage);
  if (
    stage === undefined ||
    base === 0 ||
    step === 0 ||
    percent > 100 ||
    (stage === 'canary') !== percent > 0 ||
    maxNewDenials > mostNewDenials ||
    !/^[0-9a-f]{32}$/.test(sent.id) ||
    ![sent.candidate, sent.recordSha256].every((digest) => sha256.test(digest))
  ) {
    throw refused();
  }
  const put = sent.putPolicies.map(policyFromWire);
  const deleted = sent.deletePolicies;
  const keys = [...put.map(({ key }) => key), ...deleted];
  if (new Set(keys).size !== keys.length || (stage === 'ended' && keys.length > 0)) throw refused();
  return {
    state: {
      id: sent.id,
      base,
      step,
      stage,
      percent,
      maxNewDenials,
      candidate: sent.candidate,
      time: dateOf(sent.timeMs),
      recordSha256: sent.recordSha256,
      publicKey: Buffer.from(sent.publicKey).toString('base64'),
      signature: Buffer.from(sent.signature).toString('base64'),
    },
    changes: { put, deleted },
  };
}

function refused(): MeshError {
  return new MeshError('view_invalid', 'the view has a rollout that is none');
}

const stages: readonly Rollout['stage'][] = ['shadow', 'canary', 'ended'];
const sha256 = /^[0-9a-f]{64}$/;

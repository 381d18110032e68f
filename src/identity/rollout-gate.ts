import type { Decision, RolloutVerdict } from '../authz/decision.ts';
import type { RawCall } from '../authz/istio-mode.ts';
import { judgeAgain, type Judged } from '../authz/judge.ts';
import type { Snapshot } from '../authz/snapshot.ts';
import { concernsDestination, type LiveRollout } from './candidate.ts';
import { canaryShare, type Rollout } from './rollout.ts';

/** Stands between what is in force and the answer while a rollout is under way. */
export type RolloutGate = {
  /**
   * Judges a call by the candidate as well, and says which verdict is the answer: `rollout` in the decision tells both.
   * What was denied before any policy is given back as it is.
   * @param active the snapshot that judged it
   */
  readonly judge: (live: LiveRollout, active: Snapshot, call: RawCall, judged: Judged, now: Date) => Judged;
};

/**
 * Makes the gate of one door. It counts what the candidate newly denies in its canary: up to the budget of the rollout, the
 * candidate's denial is the answer. The call that is one too many gets the verdict in force, and so does every call to that
 * destination from then on: with a budget of none no call is denied that was allowed before.
 * @param onFailure told errors of ours; what the candidate fails on it never decides
 */
export function createRolloutGate(onFailure: (error: unknown) => void): RolloutGate {
  let of = '';
  let denials = 0;
  let shares = new Map<string, number>();
  let fallen = new Set<string>();

  const shareOf = (id: string, { destination }: RawCall): number => {
    let share = shares.get(destination.text);
    if (share === undefined) {
      // Destinations outside the inventory must not fill the memory.
      if (shares.size >= maxRemembered) shares.clear();
      shares.set(destination.text, (share = canaryShare(id, destination)));
    }
    return share;
  };

  /** Whose verdict is the answer, where the two differ. */
  const chooseFor = (rollout: Rollout, call: RawCall, candidate: Decision): RolloutVerdict['applied'] => {
    if (rollout.stage !== 'canary' || shareOf(rollout.id, call) >= rollout.percent) return 'active';
    if (fallen.has(call.destination.text)) return 'fallback';
    if (candidate.verdict === 'allow') return 'candidate';
    if (candidate.reason !== 'engine_failed' && denials < rollout.maxNewDenials) {
      denials += 1;
      return 'candidate';
    }
    if (fallen.size < maxRemembered) fallen.add(call.destination.text);
    return 'fallback';
  };

  const judgeBoth = (
    { rollout, candidate: { snapshot } }: LiveRollout,
    active: Snapshot,
    call: RawCall,
    { decision, request }: Judged,
    now: Date,
  ): RolloutVerdict | undefined => {
    if (request === undefined) return undefined;
    if (rollout.id !== of) {
      [of, denials, shares, fallen] = [rollout.id, 0, new Map(), new Set()];
    }
    const candidate = concernsDestination(active, snapshot, call.destination)
      ? judgeAgain(snapshot, call, request, now, onFailure)
      : decision;
    const differs = candidate.verdict !== decision.verdict;
    const applied = differs ? chooseFor(rollout, call, candidate) : 'active';
    return { id: rollout.id, applied, active: decision, candidate };
  };

  return {
    judge: (live, active, call, judged, now) => {
      let rollout: RolloutVerdict | undefined;
      try {
        rollout = judgeBoth(live, active, call, judged, now);
      } catch (error) {
        // INVARIANT: whatever becomes of the candidate, there is a verdict of what is in force.
        onFailure(error);
      }
      if (rollout === undefined) return judged;
      const decided = rollout.applied === 'candidate' ? rollout.candidate : judged.decision;
      return { request: judged.request, decision: { ...decided, rollout } };
    },
  };
}

const maxRemembered = 100_000;

import { decide } from '../authz/decide.ts';
import type { Decision, DecisionReason, NearestRule, ShadowVerdict } from '../authz/decision.ts';
import { isRejection } from '../authz/request.ts';
import { inexactInIstioMode, type Snapshot } from '../authz/snapshot.ts';
import type { Steps } from '../authz/steps.ts';
import { type ErrorCode, type MeshError, publicError } from '../errors.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { AuthzenCall, Refusal } from './authzen-question.ts';
import { statusOf } from './problem.ts';

/** Why an answer is what it is: what decisions have, and what is said of a question that is no call. */
export const authzenReasons = ['type_unknown', 'question_refused'] as const;
export type AuthzenReason = DecisionReason | (typeof authzenReasons)[number];

/** A Decision of AuthZEN. Its context leaves out what there is nothing to say of. */
export type AuthzenAnswer = {
  readonly decision: boolean;
  readonly context: {
    readonly reason: AuthzenReason;
    /** One sentence for people: lower case, no full stop. */
    readonly why: string;
    /** The mesh revision that decided. */
    readonly revision: number;
    readonly rule?: string | undefined;
    readonly nearest?: NearestRule | undefined;
    readonly custom?: string | undefined;
    readonly audited?: string | undefined;
    readonly shadow?: ShadowVerdict | undefined;
    /** With `question_refused`: what the question alone would have been refused with. */
    readonly error?:
      { readonly status: number; readonly code: ErrorCode; readonly message: string } | undefined;
  };
};

/** What answers need besides the policies. */
export type AnswerParts = {
  readonly isBanned: (source: SpiffeId, destination: SpiffeId) => boolean;
  readonly onFailure: (error: unknown) => void;
};

/** The answer to a question. Rules that nobody has asked about before are made ready in steps. */
export function* answerCall(
  snapshot: Snapshot,
  call: AuthzenCall | Refusal,
  now: Date,
  { isBanned, onFailure }: AnswerParts,
): Steps<AuthzenAnswer> {
  const { revision } = snapshot;
  if ('why' in call) return no(call.reason, call.why, revision);
  // Who has been banned and why is for those who may read bans.
  if (isBanned(call.source, call.destination)) {
    return no('banned', 'the caller or the destination is banned', revision);
  }
  const { request } = call;
  if (isRejection(request)) return no(request.reason, request.why, revision);
  // A proxy forwards more of a call than this question says.
  if (snapshot.mode === 'istio') return answerRefused(inexactInIstioMode(), revision);
  yield* snapshot.ready(request.destination);
  return describe(decide(snapshot, request, now, onFailure));
}

/** The answer to a question among others that cannot be put. */
export function answerRefused(error: MeshError, revision: number): AuthzenAnswer {
  const { code, message } = publicError(error);
  const { decision, context } = no('question_refused', message, revision);
  return { decision, context: { ...context, error: { status: statusOf(code), code, message } } };
}

function no(reason: AuthzenReason, why: string, revision: number): AuthzenAnswer {
  return { decision: false, context: { reason, why, revision } };
}

function describe(decision: Decision): AuthzenAnswer {
  const { verdict, reason, why, revision, rule, nearest, custom, audited, shadow } = decision;
  return {
    decision: verdict === 'allow',
    context: {
      reason,
      why,
      revision,
      ...(rule === '' ? {} : { rule }),
      ...(nearest === null ? {} : { nearest }),
      ...(custom === null ? {} : { custom }),
      ...(audited === '' ? {} : { audited }),
      ...(shadow === null ? {} : { shadow }),
    },
  };
}

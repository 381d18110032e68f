import { allows, allowsUnkept } from '../authz/allows.ts';
import type { AuthzRequest } from '../authz/decision.ts';
import { isRejection } from '../authz/request.ts';
import type { Snapshot } from '../authz/snapshot.ts';
import type { Steps } from '../authz/steps.ts';
import type { AnswerParts, AuthzenReason } from './authzen-answer.ts';
import { nextToken, type PagePlan } from './authzen-page.ts';
import type { AuthzenCall, Refusal } from './authzen-question.ts';
import { pageOf } from './page.ts';

/** A page of a search as it is answered. `T` is what is searched for. */
export type SearchAnswer<T> = {
  /** `next_token` is empty at the end. */
  readonly page: { readonly next_token: string; readonly count: number };
  readonly context: {
    readonly revision: number;
    /** Why nothing was found, when it is the question that nothing could be found for. */
    readonly reason?: AuthzenReason | undefined;
    readonly why?: string | undefined;
  };
  readonly results: readonly T[];
};

/** What is looked for, and among whom. */
export type Search<T> = {
  /** By their texts, in whose order they are found. */
  readonly candidates: ReadonlyMap<string, { readonly text: string }>;
  /** The question whether one of them is allowed. */
  readonly callOf: (candidate: string) => AuthzenCall | Refusal;
  /** Whether each question goes to a destination of its own. */
  readonly isWide: boolean;
  readonly show: (candidate: string) => T;
};

/**
 * Those of the candidates for whom the answer is yes: all of them are asked about, none is guessed. A page ends early when
 * it has cost enough.
 */
export function* findAllowed<T>(
  snapshot: Snapshot,
  { candidates, callOf, isWide, show }: Search<T>,
  plan: PagePlan,
  isBanned: AnswerParts['isBanned'],
  now: Date,
): Steps<SearchAnswer<T>> {
  const cursor = plan.after === '' ? undefined : Buffer.from(plan.after, 'utf8').toString('base64url');
  const { items, next } = pageOf(candidates, { cursor, limit: maxCandidates });
  const found: string[] = [];
  const refusals = new Map<string, Refusal>();
  let [last, asked, work] = [plan.after, 0, 0];
  const answer = (after: string | null): SearchAnswer<T> => {
    const [refusal] = asked === 0 && refusals.size === 1 ? refusals.values() : [];
    return {
      page: { next_token: after === null ? '' : nextToken(plan, after), count: found.length },
      context: { revision: snapshot.revision, ...(refusal === undefined ? {} : pickRefusal(refusal)) },
      results: found.map(show),
    };
  };
  for (const { text } of items) {
    yield;
    const call = callOf(text);
    const asking = readyOf(call);
    if ('why' in asking) refusals.set(asking.why, asking);
    else {
      asked += 1;
      const { source, destination, request } = asking;
      if (!isWide) yield* snapshot.ready(destination);
      const judged = isWide
        ? yield* allowsUnkept(snapshot, request, now)
        : { allowed: allows(snapshot, request, now), work: 0 };
      work += judged.work;
      if (judged.allowed && !isBanned(source, destination)) {
        // One more than fits: there is a page after this one.
        if (found.length === plan.limit) return answer(found.at(-1) ?? plan.after);
        found.push(text);
      }
    }
    work += plan.weight;
    last = text;
    if (work > maxWork) return answer(last);
  }
  return answer(next === null ? null : last);
}

type Asking = Omit<AuthzenCall, 'request'> & { readonly request: AuthzRequest };

function readyOf(call: AuthzenCall | Refusal): Asking | Refusal {
  if ('why' in call) return call;
  const { request } = call;
  return isRejection(request) ? request : { ...call, request };
}

/** The answer to a search for which nothing can be found. */
export function nothingFound<T>(snapshot: Snapshot, refusal: Refusal): SearchAnswer<T> {
  return {
    page: { next_token: '', count: 0 },
    context: { revision: snapshot.revision, ...pickRefusal(refusal) },
    results: [],
  };
}

function pickRefusal({ reason, why }: Refusal): Refusal {
  return { reason, why };
}

const maxCandidates = 10_000;
/** In rules that are looked at. */
const maxWork = 1_000_000;

import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Steps } from '../authz/steps.ts';
import { MeshError, quote } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { answerCall, type AnswerParts, answerRefused, type AuthzenAnswer } from './authzen-answer.ts';
import {
  type AuthzenCall,
  questionBody,
  questionParts,
  readQuestion,
  type Refusal,
} from './authzen-question.ts';
import { authzenRoutes as routes } from './authzen-transport.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { checkHost, soleHeader } from './origin.ts';
import { demandNamespace, namespaceOf } from './permit.ts';
import type { ReportFailure } from './problem.ts';
import type { ReachPorts } from './reach-routes.ts';
import { addRoute } from './route.ts';

/** What AuthZEN needs of the house. */
export type AuthzenPorts = Pick<ReachPorts, 'survey' | 'isBanned'> & {
  readonly reportFailure: ReportFailure;
  /** Where subjects and resources that are no workloads are judged; null where there are none. */
  readonly authzenNamespace: string | null;
};

/**
 * Decisions for programs that speak AuthZEN, by the same engine as all others.
 * @param hosts the names that the Host header of this door may have
 * @see OpenID AuthZEN Authorization API 1.0
 */
export function addAuthzenRoutes(
  app: FastifyInstance,
  ports: AuthzenPorts,
  trustDomain: TrustDomain,
  hosts: ReadonlySet<string>,
): void {
  const world = { trustDomain, namespace: ports.authzenNamespace };
  const parts: AnswerParts = {
    isBanned: ports.isBanned,
    onFailure: (error) => ports.reportFailure('', error),
  };
  const ask = (request: FastifyRequest, body: unknown): AuthzenCall | Refusal => {
    const call = readQuestion(parseInput(questionBody, body, 'body_invalid'), world);
    if (!('why' in call)) demandDestination(request, call, trustDomain);
    return call;
  };
  const evaluate = async (request: FastifyRequest): Promise<AuthzenAnswer> => {
    const call = ask(request, request.body);
    return ports.survey((snapshot, now) => answerCall(snapshot, call, now, parts));
  };

  addRoute(app, routes.evaluation, evaluate);
  addRoute(app, routes.evaluations, async (request) => {
    const { evaluations, options, ...defaults } = parseInput(evaluationsBody, request.body, 'body_invalid');
    if (evaluations === undefined || evaluations.length === 0) return evaluate(request);
    const semantic = options?.evaluations_semantic ?? 'execute_all';
    return ports.survey(function* (snapshot, now): Steps<EvaluationsAnswer> {
      const answers: AuthzenAnswer[] = [];
      for (const one of evaluations) {
        yield;
        const call = settle(() => ask(request, { ...defaults, ...one }));
        const answer =
          call instanceof MeshError
            ? answerRefused(call, snapshot.revision)
            : yield* answerCall(snapshot, call, now, parts);
        answers.push(answer);
        if (endsWith.get(semantic) === answer.decision) break;
      }
      return { evaluations: answers };
    });
  });
  addRoute(app, routes.configuration, async (request) => {
    // Nobody has looked at the Host header of a public route, and it is in the answer.
    const misled = checkHost(request.raw, hosts);
    if (misled !== undefined) throw misled;
    return describeService(`https://${(soleHeader(request.raw, 'host') ?? '').toLowerCase()}`);
  });
}

/**
 * Refuses whoever may not ask about calls to that destination.
 * @throws MeshError `forbidden`
 */
export function demandDestination(
  request: FastifyRequest,
  { destination }: Pick<AuthzenCall, 'destination'>,
  trustDomain: TrustDomain,
): void {
  const namespace = destination.memberOf(trustDomain) ? namespaceOf(destination) : undefined;
  demandNamespace(callerOf(request), 'authz:explain', namespace, `a call to ${quote(destination.text)}`);
}

/** One of several questions fails by itself. */
function settle(read: () => AuthzenCall | Refusal): AuthzenCall | Refusal | MeshError {
  try {
    return read();
  } catch (error) {
    if (error instanceof MeshError) return error;
    throw error;
  }
}

export type EvaluationsAnswer = { readonly evaluations: readonly AuthzenAnswer[] };

const semantics = ['execute_all', 'deny_on_first_deny', 'permit_on_first_permit'] as const;
/** The decision after which no further question is answered. */
const endsWith: ReadonlyMap<string, boolean> = new Map([
  ['deny_on_first_deny', false],
  ['permit_on_first_permit', true],
]);

/** The body of `POST /access/v1/evaluations`: at most 100 questions, whose parts stand in for what each leaves out. */
export const evaluationsBody = z
  .object(questionParts)
  .partial()
  .extend({
    evaluations: z.array(z.record(z.string(), z.unknown())).max(100).optional(),
    options: z.object({ evaluations_semantic: z.enum(semantics).optional() }).optional(),
  });

/** What is told of the service to those who look for it. */
export type ServiceDescription = ReturnType<typeof describeService>;

function describeService(base: string) {
  const urlOf = (route: string): string => `${base}${route.slice(route.indexOf('/'))}`;
  return {
    policy_decision_point: base,
    access_evaluation_endpoint: urlOf(routes.evaluation),
    access_evaluations_endpoint: urlOf(routes.evaluations),
    search_subject_endpoint: urlOf(routes.searchSubject),
    search_resource_endpoint: urlOf(routes.searchResource),
    search_action_endpoint: urlOf(routes.searchAction),
  };
}

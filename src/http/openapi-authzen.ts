import { z } from 'zod';
import { decisionReasons } from '../authz/decision.ts';
import { type ErrorCode, errorKinds } from '../errors.ts';
import { type AuthzenAnswer, authzenReasons } from './authzen-answer.ts';
import { questionBody } from './authzen-question.ts';
import { type EvaluationsAnswer, evaluationsBody, type ServiceDescription } from './authzen-routes.ts';
import type { SearchAnswer } from './authzen-search.ts';
import {
  actionSearchBody,
  type FoundAction,
  type FoundEntity,
  resourceSearchBody,
  subjectSearchBody,
} from './authzen-search-routes.ts';
import { authzenRoutes } from './authzen-transport.ts';
import { count, json, revision, type RouteDocs } from './openapi-route.ts';

const reason = z.enum([...decisionReasons, ...authzenReasons]);
const verdict = z.enum(['allowed', 'denied']).nullable();
const code = z.enum(Object.keys(errorKinds) as ErrorCode[]);
const answerSchema: z.ZodType<AuthzenAnswer> = z.object({
  decision: z.boolean(),
  context: z.object({
    reason,
    why: z.string(),
    revision,
    rule: z.string().optional(),
    nearest: z.object({ rule: z.string(), place: z.string(), missed: z.string() }).optional(),
    custom: z.string().optional(),
    audited: z.string().optional(),
    shadow: z.object({ allow: verdict, deny: verdict }).optional(),
    error: z.object({ status: z.number().int(), code, message: z.string() }).optional(),
  }),
});
const evaluationsSchema: z.ZodType<EvaluationsAnswer> = z.object({ evaluations: z.array(answerSchema) });
const eitherSchema = z.union([answerSchema, evaluationsSchema]);
const found = {
  page: z.object({ next_token: z.string(), count }),
  context: z.object({ revision, reason: reason.optional(), why: z.string().optional() }),
};
const entitiesSchema: z.ZodType<SearchAnswer<FoundEntity>> = z.object({
  ...found,
  results: z.array(z.object({ type: z.string(), id: z.string() })),
});
const actionsSchema: z.ZodType<SearchAnswer<FoundAction>> = z.object({
  ...found,
  results: z.array(z.object({ name: z.string() })),
});
const serviceSchema: z.ZodType<ServiceDescription> = z.object({
  policy_decision_point: z.string(),
  access_evaluation_endpoint: z.string(),
  access_evaluations_endpoint: z.string(),
  search_subject_endpoint: z.string(),
  search_resource_endpoint: z.string(),
  search_action_endpoint: z.string(),
});

/** AuthZEN. */
export const authzenDocs = {
  schemas: {
    AuthzenQuestion: questionBody,
    AuthzenAnswer: answerSchema,
    AuthzenQuestions: evaluationsBody,
    AuthzenAnswers: evaluationsSchema,
    AuthzenEvaluations: eitherSchema,
    AuthzenSubjectSearch: subjectSearchBody,
    AuthzenResourceSearch: resourceSearchBody,
    AuthzenActionSearch: actionSearchBody,
    AuthzenEntities: entitiesSchema,
    AuthzenActions: actionsSchema,
    AuthzenService: serviceSchema,
  },
  routes: {
    [authzenRoutes.configuration]: {
      summary: 'where the endpoints of AuthZEN are',
      answers: { 200: json(serviceSchema) },
      codes: ['host_not_allowed'],
    },
    [authzenRoutes.evaluation]: {
      summary: 'the answer to one question of AuthZEN',
      body: questionBody,
      answers: { 200: json(answerSchema) },
      codes: [],
    },
    [authzenRoutes.evaluations]: {
      summary: 'the answers to at most 100 questions of AuthZEN',
      body: evaluationsBody,
      answers: { 200: json(eitherSchema) },
      codes: [],
    },
    [authzenRoutes.searchSubject]: {
      summary: 'a page of the subjects that may do something to a resource',
      body: subjectSearchBody,
      answers: { 200: json(entitiesSchema) },
      codes: [],
    },
    [authzenRoutes.searchResource]: {
      summary: 'a page of the resources that a subject may do something to',
      body: resourceSearchBody,
      answers: { 200: json(entitiesSchema) },
      codes: [],
    },
    [authzenRoutes.searchAction]: {
      summary: 'a page of what a subject may do to a resource',
      body: actionSearchBody,
      answers: { 200: json(actionsSchema) },
      codes: [],
    },
  },
} as const satisfies RouteDocs;

import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { callTypes } from '../audit/columns.ts';
import type { AuditRow } from '../audit/query.ts';
import { auditEventTypes } from '../audit/question.ts';
import { MeshError, quote } from '../errors.ts';
import { type Permission, rolesWith, scopeOf } from '../identity/access.ts';
import { type Answer, readQuestion } from '../identity/questions/ask.ts';
import { findQuestion, questions, unanswered } from '../identity/questions/catalogue.ts';
import type { LogQuestion, QuestionPorts } from '../identity/questions/ports.ts';
import type { Asking, QuestionParameter } from '../identity/questions/question.ts';
import type { NoteRead } from './audit-routes.ts';
import type { AdminCaller } from './authenticate.ts';
import { callerOf } from './caller.ts';
import { parseInput } from './input.ts';
import { demandNamespace } from './permit.ts';
import { addRoute } from './route.ts';

/** What the questions of auditors need of the house. */
export type AuditorPorts = {
  /** @param isTimeUp asked between the steps of long searches */
  readonly questionPorts: (isTimeUp: () => boolean) => QuestionPorts;
};

/** A question as it is listed. */
export type QuestionView = {
  readonly name: string;
  readonly line: string;
  readonly parameters: readonly QuestionParameter[];
  /** What it takes besides `audit:read`. */
  readonly needs: readonly Permission[];
};

/** All questions, and those that nobody answers here. */
export type QuestionList = {
  readonly items: readonly QuestionView[];
  readonly unanswered: typeof unanswered;
};

/** The questions of auditors, each answered by one GET. */
export function addQuestionRoutes(app: FastifyInstance, ports: AuditorPorts, noteRead: NoteRead): void {
  addRoute(app, 'GET /v1/audit/questions', async (request) => {
    await noteRead(request, 'list of questions');
    const items = questions.map(({ name, line, parameters, needs }) => ({ name, line, parameters, needs }));
    return { items, unanswered } satisfies QuestionList;
  });
  addRoute<{ name: string }>(app, 'GET /v1/audit/questions/:name', async (request) => {
    const question = findQuestion(request.params.name);
    const fields = parseInput(fieldsQuery, request.query, 'query_invalid');
    const caller = callerOf(request);
    for (const permission of question.needs) {
      demandNamespace(caller, permission, undefined, `the question ${quote(question.name)}`);
    }
    const asking = within(ports.questionPorts(timeUpIn(answerMs)), caller);
    const answer = readQuestion(question, new Map(Object.entries(fields)), asking.now());
    await noteRead(request, describe(question.name, fields));
    return (await answer(asking)) satisfies Answer;
  });
}

/** The house as far as a caller may look. */
function within(ports: QuestionPorts, { grants }: AdminCaller): Asking {
  const may = (permission: Permission): boolean => scopeOf(grants, permission) === 'everywhere';
  const mayReadCalls = may('audit:decisions');
  const mayReadPersonal = may('audit:personal');
  // INVARIANT: whatever a question asks of the log, what its caller may not read is in no page and in no count.
  const narrow = (question: LogQuestion): LogQuestion => (mayReadCalls ? question : withoutCalls(question));
  const shown = (row: AuditRow): AuditRow => (mayReadPersonal ? row : { ...row, personal: {} });
  return {
    ...ports,
    may,
    read: async (question) => {
      const page = await ports.read(narrow(question));
      return {
        ...page,
        rows: page.rows.map(shown),
        coverage: mayReadCalls
          ? { ...page.coverage, notSearched: [] }
          : { ...page.coverage, proxies: null, notSearched: [...callTypes] },
      };
    },
    sample: async (question) => {
      for (const { types } of question.populations) narrow({ types });
      const sample = await ports.sample(question);
      return { ...sample, drawn: sample.drawn.map(shown), marked: sample.marked.map(shown) };
    },
    count: (by, question, cursor) => ports.count(by, narrow(question), cursor),
  };
}

/** @throws MeshError `forbidden` */
function withoutCalls(question: LogQuestion): LogQuestion {
  const types = question.types ?? [];
  if (types.some((type) => isCallType(type))) {
    throw new MeshError('forbidden', 'decisions need the permission audit:decisions', {
      fix: `use a grant that gives it: ${rolesWith('audit:decisions').join(', ')}`,
    });
  }
  return types.length > 0
    ? question
    : { ...question, types: auditEventTypes.filter((type) => !isCallType(type)) };
}

function isCallType(type: string): boolean {
  return [...callTypes].some((known) => known === type);
}

// As asked, so that the same question asked again is one; without limit and cursor, so that turning pages is too.
function describe(name: string, fields: Readonly<Record<string, string>>): string {
  const { limit: _limit, cursor: _cursor, ...asked } = fields;
  return [`question=${name}`, ...Object.entries(asked).map(([field, value]) => `${field}=${value}`)].join(
    ' ',
  );
}

function timeUpIn(ms: number): () => boolean {
  const end = performance.now() + ms;
  return () => performance.now() > end;
}

const fieldsQuery = z.record(z.string().max(64), z.string().max(4_096));
/** The query of `GET /v1/audit/questions/:name`: each question takes some of these. */
export const questionQuery = z.strictObject(
  Object.fromEntries(
    [...new Set(questions.flatMap(({ parameters }) => parameters.map(({ name }) => name)))]
      .sort()
      .map((name) => [name, z.string().max(4_096).optional()]),
  ),
);
// Well before those who ask give up.
const answerMs = 10_000;

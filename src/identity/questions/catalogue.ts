import { quote, MeshError } from '../../errors.ts';
import { closestName } from '../../yaml-suggest.ts';
import { actions } from './actions.ts';
import { certificate } from './certificate.ts';
import { certificates } from './certificates.ts';
import { compromise } from './compromise.ts';
import { connections } from './connections.ts';
import { decision } from './decision.ts';
import { denied } from './denied.ts';
import { graph } from './graph.ts';
import { keys } from './keys.ts';
import { logAccess } from './log-access.ts';
import { policyChanges } from './policy-changes.ts';
import { proof } from './proof.ts';
import type { Question } from './question.ts';
import { replay } from './replay.ts';
import { sample } from './sample.ts';
import { validAt } from './valid-at.ts';
import { whoCan } from './who-can.ts';

/** The questions of auditors in their order, and `graph` beside them. */
export const questions: readonly Question[] = [
  certificates,
  certificate,
  validAt,
  keys,
  policyChanges,
  replay,
  decision,
  whoCan,
  denied,
  connections,
  actions,
  logAccess,
  proof,
  compromise,
  sample,
  graph,
];

/** Questions that auditors put and nobody answers here, and why. */
export const unanswered: readonly { readonly name: string; readonly line: string; readonly why: string }[] =
  [];

/** @throws MeshError `audit_question_unknown` */
export function findQuestion(name: string): Question {
  const found = questions.find((question) => question.name === name);
  if (found !== undefined) return found;
  const known = unanswered.find((question) => question.name === name);
  const near = closestName(
    name,
    questions.map((question) => question.name),
  );
  throw new MeshError(
    'audit_question_unknown',
    known === undefined
      ? `there is no question ${quote(name)}`
      : `${quote(name)} is not answered here: ${known.why}`,
    { fix: near === undefined ? 'see countersign audit ask for all questions' : `did you mean ${near}?` },
  );
}

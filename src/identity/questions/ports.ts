import { verdictTypes } from '../../audit/columns.ts';
import type { AuditEventType } from '../../audit/event.ts';
import { type CountGroup, type CountPage, mergeCounts, sortCounts } from '../../audit/count.ts';
import type { LoggedDecision } from '../../audit/logged-decision.ts';
import { type AuditPage, type AuditRow, maxPageSize } from '../../audit/query.ts';
import { type AuditQueryFields, auditEventTypes } from '../../audit/question.ts';
import type { Sample, SampleQuestion } from '../../audit/sample.ts';
import type { Breathe } from '../breath.ts';
import type { CurrentMesh, MeshSettings } from '../current-mesh.ts';
import type { PolicyArchive } from '../decision-past.ts';
import type { DecisionStory } from '../decision-story.ts';
import type { NodePresence } from '../node-presence.ts';
import type { CallsMeant, PolicyReplay } from '../replay-answer.ts';
import type { NamedCertificates } from '../revoked.ts';

/** A question to the log, in words: see `parseAuditQuery`. */
export type LogQuestion = AuditQueryFields;

/** What questions are answered from. */
export type QuestionPorts = {
  readonly now: () => Date;
  /** A page of the log. @throws MeshError `audit_query_invalid`, `audit_cursor_invalid` */
  readonly read: (question: LogQuestion) => Promise<AuditPage>;
  /** Counts by fields; a part of them, as `CountPage` says. @param cursor of the part before */
  readonly count: (
    by: readonly string[],
    question: LogQuestion,
    cursor: string | null,
  ) => Promise<Pick<CountPage, 'groups' | 'beyond' | 'coverage' | 'next'>>;
  /** A sample of populations without records about calls, see `collectSample`. */
  readonly sample: (question: SampleQuestion) => Promise<Sample>;
  /** Records of decisions with an ID, in the order of the log, and whether there are more. */
  readonly findDecisions: (
    id: string,
    limit: number,
  ) => Promise<{ readonly rows: readonly AuditRow[]; readonly more: boolean }>;
  readonly tellDecision: (record: LoggedDecision) => Promise<DecisionStory>;
  readonly current: () => CurrentMesh;
  readonly settings: Pick<MeshSettings, 'trustDomain' | 'rootNamespace'>;
  readonly archive: PolicyArchive;
  readonly breathe: Breathe;
  /** Certificates of these identities, serials and keys that are valid now. */
  readonly certificates: (names: {
    readonly spiffeIds: readonly string[];
    readonly serials: readonly string[];
    readonly keys: readonly string[];
  }) => Promise<NamedCertificates>;
  /** The attested nodes, and what was seen of each since the start. */
  readonly nodes: () => readonly { readonly name: string; readonly presence: NodePresence }[];
  /**
   * Recorded calls under the policies of an earlier revision.
   * @throws MeshError `policy_replay_busy`, `policy_revision_not_found` and what policies cannot be compiled for
   */
  readonly replayRevision: (number: number, meant: CallsMeant, limit: number) => Promise<PolicyReplay>;
  /** Whether the question has taken so long that its answer ends here, and says so. */
  readonly isTimeUp: () => boolean;
  /** The key that verifies the log, as text; null until somebody signs it. */
  readonly logKey: () => Promise<string | null>;
};

/** What reads records. */
export type LogReader = Pick<QuestionPorts, 'read' | 'isTimeUp'>;

/** Records, and whether they are all that there are. */
export type Read = { readonly rows: readonly AuditRow[]; readonly more: boolean };

/**
 * Reads page after page, until the end or the most rows.
 * @param most of rows
 */
export async function readAll(
  { read, isTimeUp }: LogReader,
  question: LogQuestion,
  most: number,
): Promise<Read> {
  const rows: AuditRow[] = [];
  let cursor = question.cursor;
  for (let pages = 0; pages < maxPages; pages++) {
    const limit = Math.min(most - rows.length, maxPageSize);
    const page = await read({ ...question, limit, ...(cursor === undefined ? {} : { cursor }) });
    rows.push(...page.rows);
    if (page.next === null) return { rows, more: false };
    if (rows.length >= most || isTimeUp()) return { rows, more: true };
    cursor = page.next;
  }
  return { rows, more: true };
}

/** Counts by the names of their fields; null: the records have none. */
export type NamedCount = Omit<CountGroup, 'values'> & {
  readonly of: Readonly<Record<string, string | null>>;
};

/** Counts, and whether they are of all that there is. */
export type Counted = { readonly counts: readonly NamedCount[]; readonly isWhole: boolean };

/** Counts all there is, part by part; beyond a bound it says that there is more. */
export async function countAll(
  { count, isTimeUp }: Pick<QuestionPorts, 'count' | 'isTimeUp'>,
  by: readonly string[],
  question: LogQuestion,
): Promise<Counted> {
  const parts: (readonly CountGroup[])[] = [];
  let cursor: string | null = null;
  let isWhole = true;
  for (let pages = 0; pages < maxPages; pages++) {
    const part = await count(by, question, cursor);
    parts.push(part.groups);
    if (part.beyond.records + part.coverage.folded.records > 0) isWhole = false;
    cursor = part.next;
    if (cursor === null || isTimeUp()) break;
  }
  const counts = sortCounts(mergeCounts(parts)).map(({ values, ...rest }) => ({
    ...rest,
    of: Object.fromEntries(by.map((name, at) => [name, values[at] ?? null])),
  }));
  return { counts, isWhole: isWhole && cursor === null };
}

/** A window of time in the words of a question. */
export function windowOf({
  since,
  until,
}: {
  readonly since: Date | null;
  readonly until: Date | null;
}): Pick<LogQuestion, 'since' | 'until'> {
  return {
    ...(since === null ? {} : { since: since.toISOString() }),
    ...(until === null ? {} : { until: until.toISOString() }),
  };
}

/** The types of events that say who might call whom: decisions of ours, and what proxies decided by themselves. */
export const judgedTypes: readonly AuditEventType[] = auditEventTypes.filter((type) =>
  verdictTypes.has(type),
);

/** The types of events by which proxies report connections; their outcome says how each was secured. */
export const connectionTypes: readonly string[] = auditEventTypes.filter(
  (type: string) => type === 'connections',
);

/** One who asks gets no more of the log than so many pages for one part of an answer. */
const maxPages = 200;

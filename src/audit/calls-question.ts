import type { PersonalWanted, RecordedCalls } from './recorded-call.ts';

/** Which calls of the log are wanted, as far as a step comes. */
export type CallsQuery = {
  readonly of: 'decided' | 'seen';
  readonly since: Date | null;
  readonly until: Date | null;
  /** Calls to these alone; null: to all. */
  readonly destinations: readonly string[] | null;
  readonly wanted: PersonalWanted;
  /** Below this index: a step goes from the newest to the oldest. Null: from the end of the log. */
  readonly below: number | null;
};

/** What a step found. */
export type CallsStep = {
  /** Records of one kind together, each kind once; no more than a step looks at. */
  readonly groups: readonly RecordedCalls[];
  /** For the next step; null: all was looked at. */
  readonly next: number | null;
};

/** Reads one step. @throws MeshError `store_unavailable` */
export type ReadCalls = (query: CallsQuery) => Promise<CallsStep>;

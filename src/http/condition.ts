/**
 * What may be wrong with a server that runs. Codes are never renamed once released; docs/observability.md says for each
 * what it means.
 */
export const conditionCodes = [
  'store_failed', // nothing can be recorded, and so nothing is issued or changed
  'issuer_ended', // no certificate can be signed
  'issuer_ending', // before long none can be, and nothing has taken its place
  'successor_waiting', // the next CA waits for a certificate that people have to bring
  'clock_put', // the clock of the machine was set
  'disk_low',
  'log_damaged', // an entry is not what its hash was made of
  'log_behind', // decisions wait longer than they should
  'decisions_lost',
  'unknown_serial', // somebody uses a certificate that nobody here gave out
  'log_unwitnessed', // no quorum of witnesses has cosigned the log for ten minutes
  'log_disputed', // a witness has seen another history of it
  'policies_ending', // policies stop to match within a week, or have
  'event_loop_slow',
  'memory_low',
] as const;
export type ConditionCode = (typeof conditionCodes)[number];

/** Something that is wrong now (`cause`: the server cannot do its work), or will be before long (`warning`). */
export type Condition = {
  readonly code: ConditionCode;
  readonly level: 'cause' | 'warning';
  /** For people: lower case, no full stop. /readyz shows it to anybody, so that it names no path. */
  readonly text: string;
  /** What to do, as a sentence of the same form. */
  readonly fix: string;
};

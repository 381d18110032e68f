/** A class of the schema. */
export type OcsfClass = { readonly uid: number; readonly category: number; readonly name: string };

/** What is particular to a record; the rest is the same for all. */
export type OcsfEvent = {
  readonly ocsfClass: OcsfClass;
  /** `activity_id` and `activity_name`. */
  readonly activity: readonly [number, string];
  readonly status: 'success' | 'failure';
  readonly profiles?: readonly string[];
  readonly members: Readonly<Record<string, unknown>>;
};

/** The classes that records are written as. */
export const ocsfClasses = {
  base: { uid: 0, category: 0, name: 'Base Event' },
  eventLog: { uid: 1_008, category: 1, name: 'Event Log Activity' },
  authentication: { uid: 3_002, category: 3, name: 'Authentication' },
  entity: { uid: 3_004, category: 3, name: 'Entity Management' },
  network: { uid: 4_001, category: 4, name: 'Network Activity' },
  http: { uid: 4_002, category: 4, name: 'HTTP Activity' },
  lifecycle: { uid: 6_002, category: 6, name: 'Application Lifecycle' },
  api: { uid: 6_003, category: 6, name: 'API Activity' },
} as const satisfies Readonly<Record<string, OcsfClass>>;

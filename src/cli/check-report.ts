import { printable } from './text.ts';

/** Every check, by its section, in the order in which they are made. docs/check.md says for each how to mend it. */
export const checkSections = {
  configuration: ['config_readable'],
  data: ['data_directory_private', 'key_files_private', 'disk_room'],
  server: ['server_answers', 'server_understood', 'server_version', 'server_ready', 'server_untroubled'],
  time: ['clock_agrees', 'clock_steady'],
  certificates: ['issuer_valid', 'root_valid', 'jwt_key_signs'],
  rotation: ['rotation_settled', 'keys_untainted'],
  log: ['log_writable', 'log_complete', 'log_witnessed'],
  'admin doors': ['admin_socket_private', 'admin_tls', 'trust_endpoint_tls', 'tokens_last'],
  entries: ['entries_last', 'entries_have_nodes', 'entries_unbanned', 'callers_known'],
  policies: ['policies_present', 'policies_last', 'glass_whole', 'policy_mode'],
  nodes: ['node_api_tls', 'nodes_seen'],
  'workload socket': ['workload_socket_open', 'workload_api_answers'],
  workloads: ['workloads_lit', 'sources_answer', 'proxies_follow'],
  agent: [
    'agent_answers',
    'agent_ready',
    'agent_connected',
    'agent_certificate',
    'agent_policy_fresh',
    'agent_events_sent',
  ],
} as const satisfies Record<string, readonly string[]>;
export type CheckSection = keyof typeof checkSections;

/** Of {@link checkSections}; never renamed once released. */
export type CheckCode = (typeof checkSections)[CheckSection][number];

/** What one check has found. */
export type CheckResult = {
  readonly code: CheckCode;
  /** `skipped`: there is nothing to check, or it may not be looked at; the text says which. */
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped';
  /** What should be, or what was found: lower case, no full stop. */
  readonly text: string;
  /** Why not, where it is a warning or has failed. */
  readonly cause?: string;
  readonly fix?: string;
};

/** All that was found. */
export type CheckReport = {
  /** Whether nothing has failed; warnings are no failure. */
  readonly ok: boolean;
  readonly passed: number;
  readonly warnings: number;
  readonly failed: number;
  readonly skipped: number;
  readonly sections: readonly {
    /** Of what: `server`, `agent`. */
    readonly name: CheckSection;
    readonly checks: readonly (CheckResult & { readonly docs: string })[];
  }[];
};

/** Where docs/check.md explains a check; the path is that of a checkout and of the package. */
export function docsOf(code: CheckCode): string {
  return `docs/check.md#${code}`;
}

/** Puts results under their sections. */
export function reportOf(results: readonly CheckResult[]): CheckReport {
  const count = (status: CheckResult['status']) => results.filter((one) => one.status === status).length;
  const sections = (Object.keys(checkSections) as CheckSection[]).flatMap((name) => {
    const codes: readonly string[] = checkSections[name];
    const checks = results
      .filter(({ code }) => codes.includes(code))
      .map((result) => ({ ...result, docs: docsOf(result.code) }));
    return checks.length === 0 ? [] : [{ name, checks }];
  });
  const failed = count('failed');
  return {
    ok: failed === 0,
    passed: count('ok'),
    warnings: count('warning'),
    failed,
    skipped: count('skipped'),
    sections,
  };
}

/** The report as people read it: one line for each check, and below it what to do. */
export function formatReport(report: CheckReport): string {
  const sections = report.sections.map(({ name, checks }) =>
    [name, '-'.repeat(name.length), ...checks.flatMap(formatCheck)].join('\n'),
  );
  const skipped = report.skipped === 0 ? '' : `, ${report.skipped} skipped`;
  const warnings = `${report.warnings} warning${report.warnings === 1 ? '' : 's'}`;
  return `${sections.join('\n\n')}\n\n${report.passed} passed, ${warnings}, ${report.failed} failed${skipped}\n`;
}

function formatCheck({ code, status, text, cause, fix, docs }: CheckResult & { docs: string }): string[] {
  const head = `${marks[status]} ${printable(text)}`;
  if (status === 'ok' || status === 'skipped') return [head];
  return [
    `${head}  [${code}]`,
    ...(cause === undefined ? [] : [`    ${printable(cause)}`]),
    ...(fix === undefined ? [] : [`    fix   ${printable(fix)}`]),
    `    docs  ${docs}`,
  ];
}

const marks: Readonly<Record<CheckResult['status'], string>> = {
  ok: '√',
  warning: '‼',
  failed: '×',
  skipped: '-',
};

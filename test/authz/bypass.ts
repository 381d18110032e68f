import { untold, type CallContext } from '../../src/authz/context.ts';
import { decide } from '../../src/authz/decide.ts';
import type { DecisionReason } from '../../src/authz/decision.ts';
import { decideNaively } from '../../src/authz/naive.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection } from '../../src/authz/request.ts';
import { compileSnapshot } from '../../src/authz/snapshot.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { ledger, meshOf, noon, policyText, readPolicies, web } from './mesh.ts';

/** What a row says of a call; the rest is `web` that gets `/public` of `ledger.pay` on port 8080. */
export type BypassCall = {
  readonly source?: string | null;
  readonly method?: string;
  readonly path?: string;
  readonly authority?: string;
  readonly port?: number;
  readonly tcp?: true;
  /** All lines there are. */
  readonly headers?: readonly (readonly [string, string])[];
  readonly context?: Partial<CallContext>;
};

/** One way around somebody's policy, and what becomes of it here. */
export type Bypass = {
  /** Its identifiers, or our short name. */
  readonly ids: string;
  readonly attack: string;
  /** The rules of the one ALLOW and the one DENY policy of the destination. */
  readonly allow?: readonly object[];
  readonly deny?: readonly object[];
  /** Each gets the same answer. */
  readonly calls: readonly BypassCall[];
  readonly reason: DecisionReason;
};

/** Judges a call of a row as the door does: the request is made canonical or refused, then policy is asked. */
export function judgeBypass({ allow, deny }: Bypass, call: BypassCall): { reason: string; rule: string } {
  const request = canonicalize(call);
  if (isRejection(request)) return { reason: request.reason, rule: '' };
  const policies = [
    ...(allow === undefined ? [] : [policyText(`rules: ${JSON.stringify(allow)}`, 'allow')]),
    ...(deny === undefined ? [] : [policyText(`action: DENY\nrules: ${JSON.stringify(deny)}`, 'deny')]),
  ];
  const mesh = meshOf(readPolicies(policies.join('---\n')));
  const { reason, rule, verdict } = decide(compileSnapshot(mesh), request, noon);
  const naive = decideNaively(mesh, request, noon);
  if (naive.reason !== reason || naive.rule !== rule || naive.verdict !== verdict) {
    throw new Error(`the naive evaluator says ${naive.reason} ${naive.rule}`);
  }
  return { reason, rule };
}

/** The rule that a reason names, in a mesh of these policies. */
export function ruleOf(reason: DecisionReason): string {
  return { allow_rule: 'pay/allow rule[0]', deny_rule: 'pay/deny rule[0]' }[reason as string] ?? '';
}

function canonicalize(call: BypassCall): ReturnType<typeof canonicalizeHttp> {
  const {
    source = web.text,
    method = 'GET',
    path = '/public',
    authority = 'ledger.pay',
    port = 8_080,
  } = call;
  const lines = (name: string): readonly string[] =>
    (call.headers ?? []).filter(([key]) => key === name).map(([, value]) => value);
  const caller = source === null ? null : SpiffeId.parse(source);
  const context = { ...untold, headerLines: lines, ...call.context };
  if (call.tcp) return canonicalizeTcp({ source: caller, destination: ledger, port, context });
  return canonicalizeHttp({ source: caller, destination: ledger, method, path, authority, port, context });
}

/** Entries of a rule, and paths of calls, for rows that fit a line. */
export const everyCall: readonly object[] = [{}];
export const from = (...sources: object[]): readonly object[] => [
  { from: sources.map((source) => ({ source })) },
];
export const to = (...operations: object[]): readonly object[] => [
  { to: operations.map((operation) => ({ operation })) },
];
export const when = (key: string, more: object): readonly object[] => [{ when: [{ key, ...more }] }];
export const paths = (...all: string[]): readonly BypassCall[] => all.map((path) => ({ path }));
export const hosts = (...all: string[]): readonly BypassCall[] => all.map((authority) => ({ authority }));

import type { LoggedDecision } from '../audit/logged-decision.ts';
import { drawExcerpt, drawRemedy } from '../authz/format-explanation.ts';
import type { Replay } from '../authz/replay.ts';
import type { ExplainedDecision } from '../http/decision-routes.ts';
import type { RevisionInStory } from '../identity/decision-story.ts';
import { actorText } from './actor-text.ts';
import { describeRule } from './reach-command.ts';

/**
 * A decision in the log, for a terminal, ending with a line break:
 *
 *     DENY   spiffe://corp/ns/shop/sa/web -> spiffe://corp/ns/pay/sa/ledger  PUT ledger.pay/charges
 *     record   3f1c0c9a5d0e4b7f8a6b2c1d · index 4711 · 2026-11-21T02:58:11.402Z
 *     reason   no_allow_rule · mesh revision 42
 *     why      no ALLOW rule matched; the nearest is pay/ledger rule[0], where ...
 *     caller   10.0.0.7:40112 · certificate 61ab
 *     proxy    node web-1 · uid 1000 · pid 77
 *     then     policy revision 12 · 2026-11-20T16:04:00.000Z · uid 0 (admin): let web charge
 *     nearest  pay/ledger rule[0]  ledger.yaml:17:22
 *                 17 |             methods: [GET, POST]
 *                    |                      ^^^^^^^^^^^ the call used PUT
 *     now      ALLOW  allow_rule · mesh revision 57
 *              allowed by pay/ledger rule[0]
 *     changed  policy revision 14 · 2026-11-21T03:10:00.000Z · uid 0 (admin): web may put
 *     not held the query, headers, ...
 */
export function formatDecision({ record, past, now, change, notHeld }: ExplainedDecision): string {
  const { reason, why, revision, breakGlass } = record;
  const lines = [
    `${record.verdict.toUpperCase().padEnd(5)}  ${describeCall(record)}`,
    line('record', join(record.decisionId, `index ${record.index}`, record.time)),
    line('reason', join(reason, `mesh revision ${revision}`, past.mode === 'istio' ? 'Istio mode' : '')),
    line('why', why),
    ...(breakGlass === '' ? [] : [line('grant', breakGlass)]),
    line('caller', describeCaller(record)),
    line('proxy', describeProxy(record)),
  ];
  if (past.policyRevision !== null) lines.push(line('then', describeRevision(past.policyRevision)));
  if (past.why !== '') lines.push(line(past.policyRevision === null ? 'then' : '', past.why));
  if (past.rule !== null) {
    const { kind, rule, at, used } = past.rule;
    lines.push(line(kind === 'nearest' ? 'nearest' : 'rule', `${rule}${at === null ? '' : `  ${at.place}`}`));
    if (at !== null) lines.push(...drawExcerpt(at, used === '' ? undefined : used));
  }
  if (now !== null) lines.push(...describeNow(now, record));
  lines.push(...describeChange(change));
  if (notHeld.length > 0) lines.push(line('not held', notHeld.join(', ')));
  return `${lines.join('\n')}\n`;
}

function describeCall(record: LoggedDecision): string {
  const { source, destination, protocol, method, host, path, port } = record;
  const call =
    protocol === 'tcp'
      ? `TCP port ${port === 0 ? 'unknown' : port}`
      : `${method} ${host}${path ?? ' (path not held)'}`;
  return `${source === '' ? '(no certificate)' : source} -> ${destination}  ${call}`;
}

function describeCaller({ sourceAddress, sourceSerial }: LoggedDecision): string {
  const address = sourceAddress === '' ? 'address not told' : (sourceAddress ?? 'address not held');
  return join(address, sourceSerial === '' ? '' : `certificate ${sourceSerial}`);
}

function describeProxy({ proxy }: LoggedDecision): string {
  const { node, uid, pid } = proxy;
  return join(node === '' ? 'on the machine of the server' : `node ${node}`, `uid ${uid}`, `pid ${pid}`);
}

function describeRevision({ number, time, author, message }: RevisionInStory): string {
  const by = `${actorText(author)}${message === '' ? '' : `: ${message}`}`;
  // It comes as JSON, where a date is a text.
  return join(`policy revision ${number}`, new Date(time).toISOString(), by);
}

function describeNow(now: Replay, record: LoggedDecision): readonly string[] {
  const { verdict, reason, why, revision, mode, dependsOn, explanation } = now;
  const says = verdict === 'unknown' ? 'cannot be told' : `${verdict.toUpperCase()}  ${reason ?? ''}`.trim();
  const lines = [line('now', join(says, `mesh revision ${revision}`, mode === 'istio' ? 'Istio mode' : ''))];
  if (why !== record.why) lines.push(line('', why));
  if (dependsOn.length > 0) lines.push(line('depends', `on ${dependsOn.join(', ')}`));
  for (const rule of now.allow) lines.push(line('', `allowed if ${describeRule(rule)}  ${rule.place}`));
  if (now.allowOmitted > 0) lines.push(line('', `or by one of ${now.allowOmitted} more`));
  for (const rule of now.unless) lines.push(line('', `unless ${describeRule(rule)}  ${rule.place}`));
  if (now.unlessOmitted > 0) lines.push(line('', `or one of ${now.unlessOmitted} more`));
  const decidedAt = explanation?.decidedAt ?? null;
  if (decidedAt !== null && verdict !== record.verdict) {
    lines.push(line('rule', `${now.rule}  ${decidedAt.place}`));
  }
  return [...lines, ...drawRemedy(explanation?.remedy ?? null)];
}

function describeChange({ isSame, by, why }: ExplainedDecision['change']): readonly string[] {
  if (by !== null) return [line('changed', describeRevision(by))];
  return isSame === false ? [line('changed', why)] : [];
}

function line(name: string, text: string): string {
  return `${name.padEnd(8)} ${text}`;
}

function join(...parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join(' · ');
}

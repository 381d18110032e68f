import type { Command } from 'commander';
import { parseLeafName } from '../authz/leaf-name.ts';
import { MeshError, quote } from '../errors.ts';
import { type AnswerBasis, describeBasis } from './audit-coverage.ts';
import { type AuditItem, summarise } from './audit-summary.ts';
import { clientOf, print, type Session } from './session.ts';
import { count, formatPairs, formatTable } from './text.ts';

type LeafAnswer = AnswerBasis & { readonly items: readonly AuditItem[]; readonly next: string | null };

/**
 * The name of a leaf in what Envoy says of a call that it denied by itself, or in the log: `deny:pay/ledger[0]`, alone or
 * within `rbac_access_denied_matched_policy[...]`; undefined when the text is no such thing.
 */
export function leafIn(text: string): string | undefined {
  const [, within = text] = /^rbac_access_denied_matched_policy\[(.*)\]$/.exec(text) ?? [];
  return /^(?:allow|deny|ask):/.test(within) ? within : undefined;
}

/** Explains what a proxy decided by itself: by which leaf of its policy, and which calls. @throws MeshError `usage` */
export async function explainLeaf(session: Session, command: Command, leaf: string): Promise<void> {
  const said = parseLeafName(leaf);
  if (said === undefined || leaf.length > maxLeaf) {
    throw new MeshError('usage', `${quote(leaf)} is no leaf of a policy`, {
      fix: 'give what stands in rbac_access_denied_matched_policy[...], or the header x-countersign-decision',
    });
  }
  const query = { type: 'proxy_verdict,proxy_verdicts', where: `leaf=${leaf}`, limit: `${shown}` };
  const page = await clientOf(session, command).get<LeafAnswer>('/v1/audit', query);
  const { verdict, rule, reason } = said;
  print(session, command, { leaf, verdict, rule, reason, ...page }, () => {
    session.say(describeBasis(page));
    const pairs: [string, string][] = [
      [leaf, verdictWords[verdict]],
      [verdict === 'ask' ? 'why' : 'reason', reason],
      ...(rule === '' ? [] : [['rule', rule] as [string, string]]),
      ['told', toldWords(page)],
      ['now', 'see countersign authz check, which judges a call by the policies in force'],
    ];
    const rows = page.items.map(summarise);
    const table = rows.length === 0 ? '' : `\n${formatTable(['INDEX', 'TIME', 'TYPE', 'WHAT'], rows)}`;
    return `${formatPairs(pairs)}${table}`;
  });
}

function toldWords({ items, next }: LeafAnswer): string {
  if (items.length === 0)
    return 'no proxy has told of a call that it decided by this leaf, as far as was searched';
  const records = `${next === null ? '' : 'more than '}${count(items.length, 'record', 'records')}`;
  return `${records}, as the proxies tell; which version of the policy they had is not in the name`;
}

const verdictWords = {
  allow: 'allowed by the proxy itself, by the policy that it was sent: nobody was asked',
  deny: 'denied by the proxy itself, by the policy that it was sent: nobody was asked, and the call has no decision ID',
  ask: 'not decided by the proxy: it asked, and the decision has an ID',
} as const;
const shown = 10;
const maxLeaf = 256;

import type { PolicyView } from '../http/policy-routes.ts';
import type { RevisionView } from '../http/revision-routes.ts';
import type { AdminClient } from './client.ts';
import { listAll } from './paging.ts';
import { printable } from './text.ts';
import { unifiedHunks } from './unified-diff.ts';

/** What differs between two revisions, document by document. */
export type RevisionDiff = {
  readonly from: number;
  readonly to: number;
  readonly documents: readonly DocumentDiff[];
};

export type DocumentDiff = {
  readonly key: string;
  readonly action: 'created' | 'updated' | 'deleted';
  /** Lines of a unified diff; empty when only the place of the text changed. */
  readonly lines: readonly string[];
};

/** Reads both revisions from the server, and compares the texts of those policies that differ. */
export async function diffRevisions(client: AdminClient, from: number, to: number): Promise<RevisionDiff> {
  const [before, after] = [await policiesOf(client, from), await policiesOf(client, to)];
  const documents: DocumentDiff[] = [];
  for (const key of [...new Set([...before.keys(), ...after.keys()])].sort()) {
    const [old, now] = [before.get(key), after.get(key)];
    if (old?.sha256 === now?.sha256 && old?.file === now?.file && old?.line === now?.line) continue;
    const text = async (side: PolicyView | undefined, number: number): Promise<string> =>
      side === undefined ? '' : (await policyOf(client, key, number)).source;
    const hunks = old?.sha256 === now?.sha256 ? [] : unifiedHunks(await text(old, from), await text(now, to));
    const heads = [
      `--- ${old === undefined ? '/dev/null' : `${key} (revision ${from})`}`,
      `+++ ${now === undefined ? '/dev/null' : `${key} (revision ${to})`}`,
    ];
    documents.push({
      key,
      action: old === undefined ? 'created' : now === undefined ? 'deleted' : 'updated',
      lines: hunks.length === 0 ? [] : [...heads, ...hunks],
    });
  }
  return { from, to, documents };
}

/** A diff as it is printed: no colours, nothing that hides. */
export function formatDiff({ from, to, documents }: RevisionDiff): string {
  if (documents.length === 0) return `${printable(`revisions ${from} and ${to} have the same policies`)}\n`;
  return documents
    .map(({ key, lines }) =>
      lines.length === 0
        ? `${printable(key)}: the same text in another place of its file, or in another file\n`
        : lines.map((line) => `${printable(line)}\n`).join(''),
    )
    .join('');
}

/** The number of the revision in force. */
export async function activeNumber(client: AdminClient): Promise<number> {
  return (await client.get<RevisionView>('/v1/policy-revisions/active')).number;
}

/** A policy, as it is in force or was in a revision. */
export function policyOf(
  client: AdminClient,
  key: string,
  number?: number,
): Promise<PolicyView & { readonly source: string }> {
  const [namespace = '', ...name] = key.split('/');
  const path = `/v1/policies/${encodeURIComponent(namespace)}/${encodeURIComponent(name.join('/'))}`;
  return client.get(path, number === undefined ? {} : { policyRevision: `${number}` });
}

async function policiesOf(client: AdminClient, number: number): Promise<ReadonlyMap<string, PolicyView>> {
  const page = await listAll<PolicyView>(client, '/v1/policies', {}, { policyRevision: `${number}` });
  return new Map(page.items.map((policy) => [policy.key, policy]));
}

import { MeshError, quote } from '../errors.ts';
import type { RegistrationEntry } from './entry.ts';
import type { LocateField } from './entry-parse.ts';
import type { Mesh } from './mesh.ts';
import { aliasInNodes, type NodeAlias } from './node-alias.ts';

/**
 * Demands that every alias among the `nodes` of an entry is there: one with a slip of the pen would be nobody's, and
 * nothing would say so. A mesh that does not say which aliases there are has none demanded.
 * @param nodes in the order of the author
 * @param added aliases that come in the same change
 * @throws MeshError `node_alias_not_found`, with its place when `locate` knows it
 */
export function demandAliases(
  { aliases }: Mesh,
  nodes: readonly string[],
  added: readonly NodeAlias[] = [],
  locate: LocateField = () => undefined,
): void {
  if (aliases === undefined) return;
  for (const [index, node] of nodes.entries()) {
    const name = node.startsWith(prefix) ? node.slice(prefix.length) : undefined;
    if (name === undefined || aliases.has(name) || added.some((alias) => alias.name === name)) continue;
    const place = locate('nodes', index);
    throw new MeshError('node_alias_not_found', `there is no node alias ${quote(name)}`, {
      fix: 'apply it together with the entry, or see `countersign node alias list`',
      ...(place === undefined ? {} : { place }),
    });
  }
}

/** The ids of the entries that name an alias, in their order. */
export function entriesOfAlias(mesh: Mesh, name: string): readonly string[] {
  return namingAlias(mesh, name)
    .map(({ id }) => id)
    .sort();
}

/** The entries that name an alias. */
export function namingAlias({ entries }: Mesh, name: string): readonly RegistrationEntry[] {
  const wanted = aliasInNodes(name);
  return [...entries.values()].filter(({ nodes = [] }) => nodes.includes(wanted));
}

const prefix = aliasInNodes('');

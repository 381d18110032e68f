import { actionOf } from './change-action.ts';
import type { AuditEvent } from '../audit/event.ts';
import { MeshError, type Place, quote } from '../errors.ts';
import type { YamlDocument } from '../yaml.ts';
import { entryApiVersion } from './entry-document.ts';
import type { AttestedNode } from './node.ts';
import { parseNodeSelector } from './node-selector.ts';

/** A name for all nodes that have certain selectors; entries name it as `alias:<name>`. Immutable. */
export type NodeAlias = {
  /** 1 to 128 of a-z 0-9 . - _, the first a letter or digit; the key. */
  readonly name: string;
  /** 1 to 16, all of which a node must have. Sorted, without duplicates. */
  readonly selectors: readonly string[];
  /** The mesh revision that last changed it. */
  readonly revision: number;
};

/** What a document must say of itself to be an alias. */
export const aliasKind = 'NodeAlias';
/** The most selectors of one alias, and the most aliases of a mesh: each is looked at for each node. */
export const maxAliasSelectors = 16;
export const maxAliases = 1_000;

/**
 * Reads an alias.
 * @throws MeshError `document_field_*`, `document_kind_unknown`, `node_alias_invalid`, `selector_invalid`, each with its
 *   place
 */
export function readAliasDocument(document: YamlDocument, revision: number): NodeAlias {
  const root = document.root.mapping(['apiVersion', 'kind', 'metadata', 'spec']);
  if (document.apiVersion !== entryApiVersion) {
    throw root
      .required('apiVersion')
      .error('document_kind_unknown', `is not ${entryApiVersion}`, `write apiVersion: ${entryApiVersion}`);
  }
  const name = root.required('metadata').mapping(['name']).required('name');
  const selectors = root.required('spec').mapping(['selectors']).required('selectors');
  if (!aliasName.test(name.string())) {
    throw name.error(
      'node_alias_invalid',
      `${quote(name.string())} is no name of an alias`,
      'use 1 to 128 of a-z 0-9 . - _ and begin with a letter or digit',
    );
  }
  const items = selectors.sequence();
  // INVARIANT: an alias without selectors would be every node.
  if (items.length === 0 || items.length > maxAliasSelectors) {
    throw selectors.error(
      'node_alias_invalid',
      `has ${items.length} selectors`,
      `give 1 to ${maxAliasSelectors}; an entry for every node says * in its nodes`,
    );
  }
  const texts = items.map((item) => placed(item.place, () => parseNodeSelector(item.string())));
  return { name: name.string(), selectors: [...new Set(texts)].sort(), revision };
}

/** Whether two aliases differ only in the revision that wrote them. */
export function sameAlias(a: NodeAlias, b: NodeAlias): boolean {
  return a.name === b.name && JSON.stringify(a.selectors) === JSON.stringify(b.selectors);
}

/** The event of an alias that was put, or deleted, in the step to `revision`. */
export function aliasEvent(
  before: NodeAlias | undefined,
  after: NodeAlias | undefined,
  rest: Pick<Extract<AuditEvent, { type: 'node_alias_change' }>, 'time' | 'revision' | 'actor'>,
): AuditEvent {
  return {
    type: 'node_alias_change',
    ...rest,
    action: actionOf(before, after),
    alias: (after ?? before)?.name ?? '',
    before: before?.selectors ?? [],
    after: after?.selectors ?? [],
  };
}

/** How an entry names an alias among its nodes. */
export function aliasInNodes(name: string): string {
  return `alias:${name}`;
}

/** Whether a node has all that an alias asks for. */
export function isOfAlias(alias: NodeAlias, { selectors }: Pick<AttestedNode, 'selectors'>): boolean {
  return alias.selectors.every((selector) => selectors.includes(selector));
}

export type Aliases = ReadonlyMap<string, NodeAlias>;

/** What a node answers to in the `nodes` of entries, but for `*`; worked out once for each state of node and aliases. */
export type NamesInEntries = (node: AttestedNode, aliases: Aliases | undefined) => readonly string[];

export function createNamesInEntries(): NamesInEntries {
  const known = new WeakMap<
    AttestedNode,
    { readonly of: Aliases | undefined; readonly names: readonly string[] }
  >();
  return (node, aliases) => {
    const found = known.get(node);
    if (found !== undefined && found.of === aliases) return found.names;
    const matching = [...(aliases?.values() ?? [])].filter((alias) => isOfAlias(alias, node));
    const names = [`node:${node.name}`, ...matching.map(({ name }) => aliasInNodes(name))];
    known.set(node, { of: aliases, names });
    return names;
  };
}

function placed<T>(place: Place, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof MeshError) || error.place !== undefined) throw error;
    throw new MeshError(error.code, error.message, {
      place,
      ...(error.fix === undefined ? {} : { fix: error.fix }),
    });
  }
}

const aliasName = /^[a-z0-9][a-z0-9._-]{0,127}$/;

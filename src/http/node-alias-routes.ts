import type { FastifyInstance } from 'fastify';
import { MeshError, quote } from '../errors.ts';
import type { AttestedNode } from '../identity/node.ts';
import { isOfAlias, type NodeAlias } from '../identity/node-alias.ts';
import { entriesOfAlias } from '../identity/node-alias-use.ts';
import { callerOf } from './caller.ts';
import type { EntryPorts } from './entry-routes.ts';
import { parseInput } from './input.ts';
import { pageOf, pageQuery } from './page.ts';
import { addRoute } from './route.ts';

/** What node aliases need of the house. */
export type NodeAliasPorts = EntryPorts & {
  readonly nodes: { readonly registry: { readonly all: () => readonly AttestedNode[] } };
};

/** An alias by itself: who stands behind it, and what it is for. */
export type NodeAliasReport = NodeAlias & {
  /** Names of the first 1,000 nodes that have all its selectors, whatever their state. */
  readonly nodes: readonly string[];
  readonly nodeCount: number;
  /** Ids of the first 1,000 entries that name it. */
  readonly entries: readonly string[];
  readonly entryCount: number;
};

/** Node aliases, one by one; they are written through `POST /v1/apply`. */
export function addNodeAliasRoutes(app: FastifyInstance, { administration, nodes }: NodeAliasPorts): void {
  addRoute(app, 'GET /v1/node-aliases', async (request) => {
    const { aliases = new Map<string, NodeAlias>(), revision } = administration.current();
    const page = pageOf(aliases, parseInput(pageQuery, request.query, 'query_invalid'));
    return { items: page.items.map(aliasView), next: page.next, revision };
  });
  addRoute<{ name: string }>(app, 'GET /v1/node-aliases/:name', async (request) => {
    const { name } = request.params;
    const mesh = administration.current();
    const alias = mesh.aliases?.get(name);
    if (alias === undefined) {
      throw new MeshError('node_alias_not_found', `there is no node alias ${quote(name)}`, {
        fix: 'countersign node alias list shows all names',
      });
    }
    const behind = nodes.registry.all().filter((node) => isOfAlias(alias, node));
    const entries = entriesOfAlias(mesh, name);
    const report: NodeAliasReport = {
      ...aliasView(alias),
      nodes: behind.slice(0, maxNamed).map((node) => node.name),
      nodeCount: behind.length,
      entries: entries.slice(0, maxNamed),
      entryCount: entries.length,
    };
    return report;
  });
  addRoute<{ name: string }>(app, 'DELETE /v1/node-aliases/:name', async (request, reply) => {
    await administration.deleteAlias(request.params.name, callerOf(request).actor);
    return reply.code(204).send();
  });
}

function aliasView({ name, selectors, revision }: NodeAlias): NodeAlias {
  return { name, selectors, revision };
}

const maxNamed = 1_000;

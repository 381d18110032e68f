import type { Actor, AuditEvent, NodeEvent } from '../audit/event.ts';
import type { Clock } from '../clock.ts';
import { MeshError, quote } from '../errors.ts';
import type { AttestedNode, JoinToken } from '../identity/node.ts';
import { createNotice } from '../identity/notice.ts';
import { createTurns } from '../identity/turns.ts';

/** Where nodes and join tokens are kept; each call commits its events with what they tell of. */
export type NodeStore = {
  readonly loadNodes: () => Promise<readonly AttestedNode[]>;
  readonly putNode: (node: AttestedNode, events: readonly AuditEvent[]) => Promise<void>;
  readonly removeNode: (name: string, events: readonly AuditEvent[]) => Promise<void>;
  /**
   * Puts a node in exchange for an unused, unexpired token of this secret and node: of many who try at once, one does,
   * and that one may again with the same key until its node has renewed: the answer may have been lost.
   * @throws MeshError `node_evidence_invalid`; then nothing is stored
   */
  readonly redeemJoinToken: (
    redemption: { readonly secretSha256: string; readonly keySha256: string; readonly now: Date },
    node: AttestedNode,
    events: readonly AuditEvent[],
  ) => Promise<void>;
  /** The token of a secret, used or not; null when there is none. */
  readonly findJoinToken: (secretSha256: string) => Promise<JoinToken | null>;
  readonly listJoinTokens: () => Promise<readonly JoinToken[]>;
  readonly createJoinToken: (token: JoinToken, events: readonly AuditEvent[]) => Promise<void>;
  /** @throws MeshError `join_token_not_found` */
  readonly revokeJoinToken: (id: string, events: readonly AuditEvent[]) => Promise<void>;
};

/** What a machine has proven of itself. */
export type Attested = Pick<AttestedNode, 'name' | 'method' | 'selectors'> & {
  /** SHA-256 of the secret of the join token that is used up by it, or null. */
  readonly tokenSha256: string | null;
  /** SHA-256 of the public key that its certificate is for, SPKI, lower-case hex. */
  readonly keySha256: string;
  readonly sourceAddress: string;
};

/** A certificate that a node was just given, and the one that it showed to get it. */
export type Certified = {
  readonly serial: string;
  readonly notAfter: Date;
  /** Null when it showed none. */
  readonly shown: string | null;
  readonly sourceAddress: string;
};

/** The nodes of the mesh, in memory and in the store. */
export type NodeRegistry = {
  readonly find: (name: string) => AttestedNode | undefined;
  readonly all: () => readonly AttestedNode[];
  /**
   * Lets a machine in. What it held before counts no longer.
   * @throws MeshError `node_evidence_invalid` when the token is used, expired or unknown
   */
  readonly admit: (attested: Attested) => Promise<AttestedNode>;
  /**
   * Makes a certificate count, before it is handed out.
   * @throws MeshError `node_refused` when the node was evicted, or attested anew, while it was made
   */
  readonly certify: (node: AttestedNode, certified: Certified) => Promise<AttestedNode>;
  /** From now on no certificate of the node counts. @throws MeshError `node_not_found` */
  readonly evict: (name: string, actor: Actor) => Promise<AttestedNode>;
  /** Forgets the nodes whose last certificate ended before `before`: they may come again. @returns how many */
  readonly forget: (before: Date) => Promise<number>;
  /** Calls back when a node was let in, evicted or forgotten; not when it has renewed. */
  readonly onChange: (listener: () => void) => () => void;
};

/** Opens the registry with what is stored. INVARIANT: nobody else writes nodes; changes happen one after the other. */
export async function openNodeRegistry(store: NodeStore, clock: Clock): Promise<NodeRegistry> {
  const nodes = new Map((await store.loadNodes()).map((node) => [node.name, node]));
  const notice = createNotice();
  const inTurn = createTurns(1);
  const put = (node: AttestedNode): AttestedNode => {
    nodes.set(node.name, node);
    notice.announce();
    return node;
  };
  // Nothing of any view follows from it, and a whole fleet renews within minutes: streams of a certificate that counts no
  // longer end when they are judged the next time.
  const putQuietly = (node: AttestedNode): AttestedNode => {
    nodes.set(node.name, node);
    return node;
  };
  return {
    find: (name) => nodes.get(name),
    all: () => [...nodes.values()].sort((a, b) => (a.name < b.name ? -1 : 1)),
    admit: ({ name, method, selectors, tokenSha256, keySha256, sourceAddress }) =>
      inTurn(async () => {
        const now = clock.now();
        const node: AttestedNode = {
          name,
          method,
          selectors: [...new Set(selectors)].sort(),
          attestedAt: now,
          renewedAt: now,
          notAfter: now,
          serials: [],
          evictedAt: null,
        };
        const events = [nodeEvent(node, 'attested', now, { sourceAddress })];
        if (tokenSha256 === null) await store.putNode(node, events);
        else await store.redeemJoinToken({ secretSha256: tokenSha256, keySha256, now }, node, events);
        return put(node);
      }),
    certify: (before, { serial, notAfter, shown, sourceAddress }) =>
      inTurn(async () => {
        const current = nodes.get(before.name);
        const isSame =
          current !== undefined &&
          current.evictedAt === null &&
          current.attestedAt.getTime() === before.attestedAt.getTime() &&
          (shown === null ? current.serials.length === 0 : current.serials.includes(shown));
        if (!isSame) {
          throw new MeshError('node_refused', 'the node was evicted, or attested anew meanwhile', {
            fix: 'attest the node again',
          });
        }
        const now = clock.now();
        const serials = [serial, ...(shown === null ? [] : [shown])];
        const node: AttestedNode = { ...current, renewedAt: now, notAfter, serials };
        const events = shown === null ? [] : [nodeEvent(node, 'renewed', now, { serial, sourceAddress })];
        await store.putNode(node, events);
        return putQuietly(node);
      }),
    evict: (name, actor) =>
      inTurn(async () => {
        const current = nodes.get(name);
        if (current === undefined) {
          throw new MeshError('node_not_found', `there is no node ${quote(name)}`, {
            fix: 'countersign node list shows all nodes',
          });
        }
        const now = clock.now();
        const node: AttestedNode = { ...current, evictedAt: current.evictedAt ?? now, serials: [] };
        await store.putNode(node, [nodeEvent(node, 'evicted', now, { actor })]);
        return put(node);
      }),
    forget: async (before) => {
      const over = [...nodes.values()].filter(({ notAfter }) => notAfter < before);
      for (const { name } of over) {
        await inTurn(async () => {
          // It may have come again before its turn.
          const node = nodes.get(name);
          if (node === undefined || node.notAfter >= before) return;
          await store.removeNode(name, [nodeEvent(node, 'forgotten', clock.now())]);
          nodes.delete(name);
          notice.announce();
        });
      }
      return over.length;
    },
    onChange: notice.subscribe,
  };
}

/** The event of something that happened to a node. */
export function nodeEvent(
  {
    name,
    method,
    selectors,
  }: Pick<AttestedNode, 'name' | 'selectors'> & {
    readonly method: NodeEvent['method'];
  },
  action: NodeEvent['action'],
  time: Date,
  more: {
    readonly actor?: Actor;
    readonly serial?: string;
    readonly code?: string;
    readonly sourceAddress?: string;
  } = {},
): NodeEvent {
  return {
    type: 'node',
    time,
    action,
    node: name,
    method,
    selectors,
    serial: more.serial ?? '',
    code: more.code ?? '',
    actor: more.actor ?? { kind: 'system' },
    sourceAddress: { personal: more.sourceAddress ?? '' },
  };
}

import type { AuditEvent } from '../audit/event.ts';
import { MeshError } from '../errors.ts';
import type { AttestedNode, JoinToken } from '../identity/node.ts';
import type { QuestionKind, Questions } from './protocol.ts';
import type { Write } from './witness-calls.ts';

/** Nodes, the tokens that they join with, and what they ship. */
export type NodeCalls = {
  readonly loadNodes: () => Promise<readonly AttestedNode[]>;
  readonly putNode: (node: AttestedNode, events: readonly AuditEvent[]) => Promise<void>;
  /** Forgets a node, and what it has shipped. */
  readonly removeNode: (name: string, events: readonly AuditEvent[]) => Promise<void>;
  /**
   * Puts a node in exchange for a token that nobody has used: of many who try at once, one does, and that one may again
   * with the same key until its node has renewed.
   * @throws MeshError `node_evidence_invalid`; then nothing is stored
   */
  readonly redeemJoinToken: (
    redemption: { readonly secretSha256: string; readonly keySha256: string; readonly now: Date },
    node: AttestedNode,
    events: readonly AuditEvent[],
  ) => Promise<void>;
  readonly findJoinToken: (secretSha256: string) => Promise<JoinToken | null>;
  readonly listJoinTokens: () => Promise<readonly JoinToken[]>;
  readonly createJoinToken: (token: JoinToken, events: readonly AuditEvent[]) => Promise<void>;
  /** @throws MeshError `join_token_not_found` */
  readonly revokeJoinToken: (id: string, events: readonly AuditEvent[]) => Promise<void>;
  /**
   * Records what a node has shipped. @returns false when this batch or a later one of the epoch was recorded before:
   * then nothing is
   */
  readonly recordShipment: (
    shipment: { readonly node: string; readonly epoch: string; readonly sequence: number },
    events: readonly AuditEvent[],
  ) => Promise<boolean>;
};

export function nodeCalls(
  ask: <K extends QuestionKind>(kind: K, about: Questions[K]['ask']) => Promise<Questions[K]['answer']>,
  write: Write,
): NodeCalls {
  return {
    loadNodes: () => ask('nodes', null),
    putNode: async (node, events) => {
      await write({ kind: 'node', node }, events);
    },
    removeNode: async (name, events) => {
      await write({ kind: 'node_forgotten', name }, events);
    },
    redeemJoinToken: async ({ now, ...redemption }, node, events) => {
      await write({ kind: 'join_token_redeemed', ...redemption, nowMs: now.getTime(), node }, events);
    },
    findJoinToken: (secretSha256) => ask('joinToken', secretSha256),
    listJoinTokens: () => ask('joinTokens', null),
    createJoinToken: async (token, events) => {
      await write({ kind: 'join_token_created', token }, events);
    },
    revokeJoinToken: async (id, events) => {
      await write({ kind: 'join_token_revoked', id }, events);
    },
    recordShipment: async ({ node, epoch, sequence }, events) => {
      try {
        await write({ kind: 'shipment', node, epoch, sequence }, events);
        return true;
      } catch (error) {
        if (error instanceof MeshError && error.code === 'revision_conflict') return false;
        throw error;
      }
    },
  };
}

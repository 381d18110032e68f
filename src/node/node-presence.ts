import type { Clock } from '../clock.ts';
import type { AgentReport, NodePresence } from '../identity/node-presence.ts';

/** One open stream of a node's view. */
export type PresentStream = { readonly sent: (revision: number) => void; readonly closed: () => void };

/** Where the node API notes which nodes are there. Bounded by the nodes that were attested. */
export type NodePresences = {
  readonly contact: (node: string) => void;
  readonly opened: (node: string, agentVersion: string, takesRollouts?: boolean) => PresentStream;
  readonly reported: (node: string, report: Omit<AgentReport, 'kept'>) => void;
  readonly of: (node: string) => NodePresence;
  readonly connected: () => number;
};

export function createNodePresences(clock: Clock): NodePresences {
  const nodes = new Map<string, Seen>();
  const seen = (node: string): Seen => {
    const known = nodes.get(node) ?? { ...unseen };
    known.lastContactAt = clock.now();
    nodes.set(node, known);
    return known;
  };
  return {
    contact: (node) => void seen(node),
    opened: (node, agentVersion, takesRollouts = false) => {
      const known = seen(node);
      // A node that comes back may have a stream of before still open: the newest is the one that counts.
      const stream = Symbol(node);
      Object.assign(known, {
        stream,
        since: clock.now(),
        agentVersion: agentVersion.slice(0, maxVersion).toWellFormed(),
        takesRollouts,
        viewSent: 0,
        viewInForce: 0,
        unconfirmed: [],
      });
      return {
        sent: (revision) => {
          if (known.stream !== stream) return;
          known.viewSent = revision;
          const last = known.unconfirmed.length < maxUnconfirmed ? undefined : known.unconfirmed.pop();
          known.unconfirmed.push([revision, last?.[1] ?? clock.now()]);
        },
        closed: () => {
          if (known.stream !== stream) return;
          Object.assign(known, { stream: undefined, since: clock.now() });
        },
      };
    },
    reported: (node, { viewRevision, ...report }) => {
      const known = seen(node);
      known.report = report;
      // A revision of a stream before this one, or of none, says nothing.
      if (viewRevision > known.viewSent) return;
      known.viewInForce = viewRevision;
      known.unconfirmed = known.unconfirmed.filter(([revision]) => revision > viewRevision);
    },
    of: (node) => {
      const { stream, unconfirmed, ...known } = nodes.get(node) ?? unseen;
      const connected = stream !== undefined;
      const behindSince = connected ? (unconfirmed[0]?.[1] ?? null) : known.since;
      return { ...known, connected, behindSince };
    },
    connected: () => [...nodes.values()].filter(({ stream }) => stream !== undefined).length,
  };
}

type Seen = {
  -readonly [K in keyof Omit<NodePresence, 'connected' | 'behindSince'>]: NodePresence[K];
} & {
  stream: symbol | undefined;
  /** Revisions sent and not confirmed, the oldest first. */
  unconfirmed: (readonly [revision: number, sentAt: Date])[];
};

const unseen: Seen = {
  stream: undefined,
  since: null,
  lastContactAt: null,
  agentVersion: '',
  takesRollouts: false,
  viewSent: 0,
  viewInForce: 0,
  report: null,
  unconfirmed: [],
};
const maxVersion = 64;
const maxUnconfirmed = 64;

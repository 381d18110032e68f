import type { Clock } from '../clock.ts';
import type { CallerEvidence } from '../identity/evidence.ts';
import type { PolicyService } from './policy-capability.ts';
import type { DeskPolicy } from './policy-desk.ts';
import { type FindResource, maxNames, type Resource } from './resource.ts';
import type { DeliveryObserver } from './source.ts';

/** How one filter of one proxy stands with its policy. */
export type ProxyPolicyStanding = {
  /** What the proxy calls itself. */
  readonly nodeId: string;
  readonly pid: number;
  readonly uid: number;
  /** The name of the resource; empty for a proxy that is served nothing. */
  readonly name: string;
  /**
   * `current`: it has what it should have. `behind`: it has not said so yet. `rejected`: it has refused it, and keeps what
   * it had. `unserved`: it is served nothing.
   */
  readonly state: 'current' | 'behind' | 'rejected' | 'unserved';
  /** The version that it should have; empty when there is none. */
  readonly desired: string;
  /** The version that it has in use, by its own word; empty while it has said nothing. */
  readonly acknowledged: string;
  /** The latest policy revision that is in force there; null when it is not known. */
  readonly policyRevision: number | null;
  /** Since when it has not had what it should have; null when it has. */
  readonly behindSince: Date | null;
  /** How it put its refusal, at most 1,024 characters; empty when it did not refuse. */
  readonly rejection: string;
  /** What it lacks to be given policies; empty when it lacks nothing. */
  readonly lacks: string;
  /** Leaves of the policy that it should have; null for one that says the same of every call. */
  readonly leaves: { readonly allow: number; readonly deny: number; readonly ask: number } | null;
};

/** What the streams of proxies tell of their policies. */
export type PolicyLine = DeliveryObserver & {
  /** @param policyOf what a name stands for now; undefined when it stands for no policy that was made */
  readonly offered: (find: FindResource, policyOf: (name: string) => DeskPolicy | undefined) => void;
  readonly close: () => void;
};

/** Who has which policy, as far as proxies have said so. */
export type PolicyBook = {
  readonly open: (proxy: OpenedBy) => PolicyLine;
  /** Those that do not have what they should have first, the one behind for longest at the top. */
  readonly standings: () => readonly ProxyPolicyStanding[];
};

/** Told what happens with policies; must not throw and must not wait. */
export type PolicyObserver = {
  readonly pushed: () => void;
  /** @param seconds from the push */
  readonly acknowledged: (seconds: number) => void;
  readonly rejected: (proxy: OpenedBy, names: readonly string[], message: string) => void;
  readonly unanswered: (proxy: OpenedBy, names: readonly string[]) => void;
  /** A proxy asks for policies that it is not given, or not in full. */
  readonly lacking: (proxy: OpenedBy) => void;
};

/** The proxy at the other end, and what it is served. */
export type OpenedBy = {
  readonly nodeId: string;
  readonly caller: Pick<CallerEvidence, 'pid' | 'uid'>;
  readonly service: PolicyService;
};

export function createPolicyBook(clock: Clock, observer: PolicyObserver): PolicyBook {
  const lines = new Set<Line>();
  return {
    open: (proxy) => {
      const line: Line = { proxy, entries: new Map(), find: () => undefined, policyOf: () => undefined };
      lines.add(line);
      if (proxy.service.lacks !== null) observer.lacking(proxy);
      let sentAt = 0;
      let isBeat = false;
      return {
        offered: (find, policyOf) => {
          for (const [name, entry] of line.entries) noteRevision(line, name, entry);
          line.find = find;
          line.policyOf = policyOf;
          for (const [name, entry] of line.entries) look(line, name, entry, clock.now());
        },
        pushed: (response) => {
          isBeat = response.isBeat === true;
          if (isBeat) return;
          sentAt = performance.now();
          for (const { name } of response.resources) entryOf(line, name, clock.now()).rejection = '';
          observer.pushed();
        },
        acknowledged: (resources) => {
          for (const resource of resources) take(line, resource, clock.now());
          if (!isBeat && sentAt > 0) observer.acknowledged((performance.now() - sentAt) / 1_000);
          isBeat = true;
        },
        rejected: (response, message) => {
          const names = response.resources.map(({ name }) => name);
          for (const name of names) {
            const entry = line.entries.get(name);
            if (entry !== undefined) entry.rejection = message.slice(0, maxRejection);
          }
          observer.rejected(proxy, names, message);
        },
        unanswered: () => observer.unanswered(proxy, [...line.entries.keys()]),
        close: () => void lines.delete(line),
      };
    },
    standings: () =>
      [...lines]
        .flatMap(standingsOf)
        .sort(
          (a, b) => rank(a) - rank(b) || (a.behindSince?.getTime() ?? 0) - (b.behindSince?.getTime() ?? 0),
        ),
  };
}

function entryOf({ entries }: Line, name: string, now: Date): Entry {
  const known = entries.get(name);
  if (known !== undefined) return known;
  const [oldest] = entries.keys();
  // A client may go on asking for other names for ever.
  if (oldest !== undefined && entries.size >= maxNames) entries.delete(oldest);
  const entry = { acknowledged: '', number: null, behindSince: now, rejection: '' };
  entries.set(name, entry);
  return entry;
}

/** The proxy has it in use. */
function take(line: Line, { name, version }: Resource, now: Date): void {
  const entry = entryOf(line, name, now);
  entry.acknowledged = version;
  entry.number = null;
  entry.rejection = '';
  look(line, name, entry, now);
}

/** Notes the latest revision that what the proxy has was the policy under. */
function noteRevision({ find, policyOf }: Line, name: string, entry: Entry): void {
  if (find(name)?.version !== entry.acknowledged) return;
  entry.number = policyOf(name)?.number ?? null;
}

function look(line: Line, name: string, entry: Entry, now: Date): void {
  if (line.find(name)?.version === entry.acknowledged) {
    entry.behindSince = null;
    return;
  }
  entry.behindSince ??= now;
}

function standingsOf(line: Line): readonly ProxyPolicyStanding[] {
  const { proxy, entries, find, policyOf } = line;
  const { nodeId, caller, service } = proxy;
  const common = { nodeId, pid: caller.pid, uid: caller.uid, lacks: service.lacks ?? '' };
  if (service.serves === 'nothing') return [{ ...common, ...nothing }];
  return [...entries].map(([name, entry]) => {
    const desired = find(name)?.version ?? '';
    const isCurrent = desired === entry.acknowledged;
    const made = policyOf(name);
    noteRevision(line, name, entry);
    return {
      ...common,
      name,
      state: isCurrent ? 'current' : entry.rejection === '' ? 'behind' : 'rejected',
      desired,
      acknowledged: entry.acknowledged,
      policyRevision: entry.number,
      behindSince: isCurrent ? null : entry.behindSince,
      rejection: entry.rejection,
      leaves: service.serves === 'policy' ? (made?.policy.leaves ?? null) : null,
    };
  });
}

function rank({ state }: ProxyPolicyStanding): number {
  return ['rejected', 'unserved', 'behind', 'current'].indexOf(state);
}

type Line = {
  readonly proxy: OpenedBy;
  readonly entries: Map<string, Entry>;
  find: FindResource;
  policyOf: (name: string) => DeskPolicy | undefined;
};

type Entry = {
  acknowledged: string;
  number: number | null;
  behindSince: Date | null;
  rejection: string;
};

const nothing = {
  name: '',
  state: 'unserved',
  desired: '',
  acknowledged: '',
  policyRevision: null,
  behindSince: null,
  rejection: '',
  leaves: null,
} as const;
const maxRejection = 1_024;

import { systemClock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { defaultBundleName } from '../xds/secret.ts';
import { type OfferedSecrets, type OfferedSvid, offerSecrets } from './svid-stream.ts';

/** An output that waits for its certificate. */
export type FilesSubscriber = {
  /** `default`, or a SPIFFE ID. */
  readonly identity: string;
  /** Its `confirm` says that this output uses what it was brought. */
  readonly bring: (found: OfferedSvid | 'banned') => void;
  /** @param retryMs when it is tried again; null while it is still waited for */
  readonly failed: (error: MeshError, retryMs: number | null) => void;
};

/** Where all outputs of this process have their certificates from. */
export type FilesSource = {
  /** Before `run`. */
  readonly subscribe: (subscriber: FilesSubscriber) => void;
  /** Asks until `stop` aborts, again and again when the server goes away. */
  readonly run: (stop: AbortSignal) => Promise<void>;
};

/**
 * Asks the workload socket for the bundle and for each identity, on a stream of its own each. The server follows who
 * uses what by process and name, so nothing is confirmed before every output that uses it has confirmed it.
 */
export function createFilesSource(
  socket: string,
  noIdentity: (identity: string) => Promise<MeshError>,
): FilesSource {
  const bundle = openTopic(defaultBundleName);
  const identities = new Map<string, Topic>();
  const topicOf = ({ identity }: FilesSubscriber): Topic | undefined => identities.get(identity);

  /** The outputs whose word on it counts: a bundle is nothing to who has no certificate. */
  const usersOf = (topic: Topic): readonly FilesSubscriber[] =>
    topic === bundle
      ? [...topic.subscribers].filter((subscriber) => topicOf(subscriber)?.offer !== undefined)
      : [...topic.subscribers];
  const settle = (topic: Topic): void => {
    const { offer } = topic;
    if (offer === undefined || offer.isConfirmed) return;
    if (!usersOf(topic).every((user) => offer.users.has(user))) return;
    offer.isConfirmed = true;
    void offer.confirm();
  };
  const deliver = (subscriber: FilesSubscriber): void => {
    const own = topicOf(subscriber)?.offer;
    const trust = bundle.offer;
    if (own === undefined || trust === undefined) return;
    const { certificates, privateKeyPem } = own.secrets;
    const { authorities } = trust.secrets;
    if (certificates === undefined || privateKeyPem === undefined || authorities === undefined) return;
    const confirm = async (): Promise<void> => {
      own.users.add(subscriber);
      trust.users.add(subscriber);
      for (const topic of [topicOf(subscriber), bundle]) if (topic !== undefined) settle(topic);
    };
    subscriber.bring({ certificates, privateKeyPem, authorities, confirm });
  };
  const onOffer = (topic: Topic, offered: OfferedSecrets): void => {
    topic.offer = { ...offered, users: new Set(), isConfirmed: false };
    for (const subscriber of topic.subscribers) deliver(subscriber);
    // A bundle that nobody uses yet must not hold up the next one.
    settle(bundle);
  };
  const onFailure = (topic: Topic, error: MeshError, waitMs: number): void => {
    if (error.code === 'identity_banned') {
      topic.offer = undefined;
      for (const { bring } of topic.subscribers) bring('banned');
      settle(bundle);
      return;
    }
    // An answer that is overdue is one that an output could not give; it has said why. And whatever keeps the bundle
    // away for a while keeps the certificates away too.
    if (error.code === 'stream_stalled' || (topic === bundle && error.kind === 'unavailable')) return;
    for (const { failed } of topic.subscribers) failed(error, waitMs);
  };
  const follow = async (topic: Topic, stop: AbortSignal): Promise<void> => {
    let waitMs = firstWaitMs;
    while (!stop.aborted) {
      const heard = new AbortController();
      if (topic !== bundle) void complainOfSilence(topic, AbortSignal.any([heard.signal, stop]));
      try {
        for await (const offered of offerSecrets(socket, [topic.name], stop)) {
          heard.abort();
          waitMs = firstWaitMs;
          onOffer(topic, offered);
        }
      } catch (error) {
        if (!(error instanceof MeshError)) throw error;
        onFailure(topic, error, waitMs);
        heard.abort();
        await systemClock.sleep(waitMs, stop);
        waitMs = Math.min(waitMs * 2, longestWaitMs);
      }
      heard.abort();
    }
  };
  const complainOfSilence = async ({ name, subscribers }: Topic, over: AbortSignal): Promise<void> => {
    await systemClock.sleep(silenceMs, over);
    if (over.aborted) return;
    const error = await noIdentity(name);
    if (!over.aborted) for (const { failed } of subscribers) failed(error, null);
  };
  return {
    subscribe: (subscriber) => {
      const topic = topicOf(subscriber) ?? openTopic(subscriber.identity);
      identities.set(subscriber.identity, topic);
      topic.subscribers.add(subscriber);
      bundle.subscribers.add(subscriber);
    },
    run: async (stop) => {
      await Promise.all([bundle, ...identities.values()].map((topic) => follow(topic, stop)));
    },
  };
}

type Topic = {
  readonly name: string;
  readonly subscribers: Set<FilesSubscriber>;
  /** What came last, and which outputs use it by now. */
  offer: (OfferedSecrets & { readonly users: Set<FilesSubscriber>; isConfirmed: boolean }) | undefined;
};

function openTopic(name: string): Topic {
  return { name, subscribers: new Set(), offer: undefined };
}

const firstWaitMs = 1_000;
const longestWaitMs = 30_000;
const silenceMs = 5_000;

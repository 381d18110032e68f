import type { ServerWritableStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { type AdmissionLimits, createAdmission } from '../identity/admission.ts';
import type { Breathe } from '../identity/breath.ts';
import type { AttestedNode } from '../identity/node.ts';
import { createLatch } from '../identity/notice.ts';
import { createPace, noPace, pacedRaise } from '../identity/pace.ts';
import { diffViews, type NodeView, withoutRollout } from '../identity/view.ts';
import type { WatchViewRequest } from '../wire/node.ts';
import { createViewEncoder, encodeDelta } from './view-encoder.ts';

/** The views of all nodes. */
export type ViewPort = {
  /** What the node may see now. */
  readonly current: (node: AttestedNode) => Omit<NodeView, 'revision'>;
  /** Calls back when the view of some node may have changed, or a node itself. */
  readonly onChange: (listener: () => void) => () => void;
};

export type ViewStreamLimits = {
  /** How often the node of an open stream is judged again, in ms. */
  readonly recheckMs: number;
  /** How long a node may leave a message unread. */
  readonly writeMs: number;
  /** Full views that are on their way, and nodes that wait for theirs. */
  readonly fullViews: AdmissionLimits;
};

/** One stream at work. */
export type ViewStream = {
  /** Bytes of `ViewUpdate`. */
  readonly call: ServerWritableStream<WatchViewRequest, Buffer>;
  /** Judges the peer anew. @throws MeshError `node_refused`, which ends the stream */
  readonly judge: () => AttestedNode;
  /** Cuts the connection of a peer that does not read. */
  readonly cut: () => void;
  /** Whether the node understands rollouts. One that does not goes on with what is in force. */
  readonly takesRollouts?: boolean;
  /** Told of each revision that was sent. */
  readonly sent?: (revision: number) => void;
  readonly signal: AbortSignal;
};

/** Serves the views of all nodes. @throws MeshError `server_busy`, `node_refused`, `stream_stalled` */
export type ServeView = (stream: ViewStream) => Promise<void>;

/**
 * Keeps each node's view in step: the full view at once, then one delta for all that has changed since the last message
 * was taken. A slow reader is sent fewer and larger deltas, one that does not read at all is cut. Full views are sent to
 * so many nodes at once, one node after the other; a change, and the look at who is still welcome, takes as many turns
 * of the event loop as it needs.
 */
export function createViewStreams(parts: {
  readonly view: ViewPort;
  readonly clock: Clock;
  readonly limits: ViewStreamLimits;
  /** Default: all in one turn. */
  readonly breathe?: Breathe | undefined;
}): ServeView {
  const { view, clock, limits, breathe } = parts;
  const pace = breathe === undefined ? noPace : createPace(breathe);
  const admit = createAdmission(limits.fullViews);
  // What many have in common is encoded once, for each kind of them.
  const [encodeFull, encodeOld] = [createViewEncoder(), createViewEncoder()];
  const currentOf = ({ takesRollouts, judge }: ViewStream): ReturnType<ViewPort['current']> => {
    const now = view.current(judge());
    return takesRollouts === true ? now : withoutRollout(now);
  };
  const lookAgain = tickWhileOpen(limits.recheckMs, clock);

  const write = async ({ call, cut, sent, signal }: ViewStream, bytes: Buffer, revision: number) => {
    sent?.(revision);
    if (call.write(bytes)) return;
    const drained = new AbortController();
    const done = () => drained.abort('drained');
    call.once('drain', done);
    signal.addEventListener('abort', done, { once: true });
    await clock.sleep(limits.writeMs, drained.signal);
    signal.removeEventListener('abort', done);
    if (drained.signal.aborted) return;
    cut();
    throw new MeshError('stream_stalled', 'the node does not read its view');
  };

  const sendFull = async (stream: ViewStream): Promise<NodeView> => {
    const { judge, signal, takesRollouts } = stream;
    const leave = await admit(judge().name, signal);
    const over = new AbortController();
    try {
      await new Promise<void>((resolve) => pace(false, resolve));
      const full: NodeView = { ...currentOf(stream), revision: 1 };
      // A node behind a slow line keeps its place for a moment only.
      void clock.sleep(holdMs, over.signal).then(leave);
      await write(stream, takesRollouts === true ? encodeFull(full) : encodeOld(full), 1);
      return full;
    } finally {
      over.abort('sent');
      leave();
    }
  };

  return async (stream) => {
    const { signal } = stream;
    let sent = await sendFull(stream);
    const latch = createLatch();
    const wake = pacedRaise(pace, latch, () => false);
    const forgets = [view.onChange(wake), lookAgain(wake)];
    // What changed while the first was on its way.
    latch.raise();
    try {
      while (!signal.aborted) {
        await latch.next(signal);
        if (signal.aborted) return;
        const next = currentOf(stream);
        const delta = diffViews(sent, next);
        if (delta === undefined) continue;
        sent = { ...next, revision: delta.revision };
        await write(stream, encodeDelta(delta), delta.revision);
      }
    } finally {
      for (const forget of forgets) forget();
    }
  };
}

/** One timer for all who listen, for as long as anybody does. */
function tickWhileOpen(everyMs: number, clock: Clock): (listener: () => void) => () => void {
  const listeners = new Set<() => void>();
  let stop = new AbortController();
  const run = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      await clock.sleep(everyMs, signal);
      if (!signal.aborted) for (const listener of listeners) listener();
    }
  };
  return (listener) => {
    if (listeners.size === 0) {
      stop = new AbortController();
      void run(stop.signal);
    }
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) stop.abort('nobody listens');
    };
  };
}

const holdMs = 1_000;

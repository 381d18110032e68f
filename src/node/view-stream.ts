import type { ServerWritableStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { AttestedNode } from '../identity/node.ts';
import { createLatch, latchOrSleep } from '../identity/notice.ts';
import { diffViews, type NodeView } from '../identity/view.ts';
import type { ViewUpdate, WatchViewRequest } from '../wire/node.ts';
import { deltaToWire, viewToWire } from './view-wire.ts';

/** The views of all nodes. */
export type ViewPort = {
  /** What the node may see now. */
  readonly current: (node: AttestedNode) => Omit<NodeView, 'revision'>;
  /** Calls back when the view of some node may have changed, or a node itself. */
  readonly onChange: (listener: () => void) => () => void;
};

type Parts = {
  readonly view: ViewPort;
  /** Judges the peer anew. @throws MeshError `node_refused`, which ends the stream */
  readonly judge: () => AttestedNode;
  /** Cuts the connection of a peer that does not read. */
  readonly cut: () => void;
  readonly clock: Clock;
  readonly limits: { readonly recheckMs: number; readonly writeMs: number };
  readonly signal: AbortSignal;
};

/**
 * Keeps one node's view in step: the full view at once, then one delta for all that has changed since the last message
 * was taken. A slow reader is sent fewer and larger deltas, one that does not read at all is cut.
 */
export async function streamView(
  call: ServerWritableStream<WatchViewRequest, ViewUpdate>,
  { view, judge, cut, clock, limits, signal }: Parts,
): Promise<void> {
  const latch = createLatch();
  const unsubscribe = view.onChange(latch.raise);
  const send = async (update: ViewUpdate): Promise<void> => {
    if (call.write(update)) return;
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
  try {
    let sent: NodeView = { ...view.current(judge()), revision: 1 };
    await send({ kind: { $case: 'full', full: viewToWire(sent) } });
    while (!signal.aborted) {
      await latchOrSleep(latch, limits.recheckMs, clock, signal);
      if (signal.aborted) return;
      const next = view.current(judge());
      const delta = diffViews(sent, next);
      if (delta === undefined) continue;
      sent = { ...next, revision: delta.revision };
      await send({ kind: { $case: 'delta', delta: deltaToWire(delta) } });
    }
  } finally {
    unsubscribe();
  }
}

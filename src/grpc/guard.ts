import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
} from '@grpc/grpc-js';
import { MeshError } from '../errors.ts';
import { grpcFailure } from './status.ts';

/** Told of every failure that a caller only sees as `internal`. */
export type ReportFailure = (error: unknown, method: string) => void;

/**
 * A unary handler from which nothing escapes: an async throw inside grpc-js would be an unhandled rejection, and the
 * caller would wait for its deadline.
 * @param handle answers the call; `signal` aborts when the caller gives up
 * @param options.fallback the answer of a failed call, for services that answer refusals with a successful RPC; when
 * it throws as well the call fails with the first error
 */
export function guardUnary<Request, Response>(
  handle: (call: ServerUnaryCall<Request, Response>, signal: AbortSignal) => Response | Promise<Response>,
  options: { readonly report?: ReportFailure; readonly fallback?: (error: unknown) => Response } = {},
): handleUnaryCall<Request, Response> {
  return (call, callback) => {
    const cancelled = new AbortController();
    call.on('cancelled', () => cancelled.abort(ended));
    call.on('error', () => cancelled.abort(ended));
    const answer = async (): Promise<void> => {
      try {
        callback(null, await handle(call, cancelled.signal));
      } catch (error) {
        reportInternal(error, call.getPath(), options.report);
        const response = attempt(options.fallback, error);
        if (response === undefined) callback(grpcFailure(error));
        else callback(null, response);
      }
    };
    void answer();
  };
}

/**
 * A bidirectional handler from which nothing escapes. The stream ends with OK when the handler resolves and with the
 * status of what it throws otherwise.
 * @param handle owns the stream until it settles; `signal` aborts when the stream is over for whatever reason, and the
 * handler must then settle soon
 */
export function guardStream<Request, Response>(
  handle: (call: ServerDuplexStream<Request, Response>, signal: AbortSignal) => Promise<void>,
  options: { readonly report?: ReportFailure } = {},
): handleBidiStreamingCall<Request, Response> {
  return (call) => void serveStream(call, (signal) => handle(call, signal), options.report);
}

/** As {@link guardStream}, for a stream of answers to one request. */
export function guardServerStream<Request, Response>(
  handle: (call: ServerWritableStream<Request, Response>, signal: AbortSignal) => Promise<void>,
  options: { readonly report?: ReportFailure } = {},
): handleServerStreamingCall<Request, Response> {
  return (call) => void serveStream(call, (signal) => handle(call, signal), options.report);
}

/**
 * As {@link guardStream} for streams of which thousands are opened at once: nothing is awaited, and no signal made, for
 * any of them.
 * @param open takes the stream over until it calls `finish`, with what it ends with or with nothing. @returns called when
 * the stream is over for whatever reason, unless it has finished; what it finishes with after that is told nobody
 */
export function guardPipe<Request, Response>(
  open: (call: ServerDuplexStream<Request, Response>, finish: (error?: unknown) => void) => () => void,
  options: { readonly report?: ReportFailure } = {},
): handleBidiStreamingCall<Request, Response> {
  return (call) => {
    let [isOver, isFinished] = [false, false];
    let leave: (() => void) | undefined;
    const over = (): void => {
      if (isOver) return;
      isOver = true;
      leave?.();
    };
    const finish = (error?: unknown): void => {
      if (isFinished) return;
      isFinished = true;
      if (error !== undefined && !(isOver && isCut(error))) {
        reportInternal(error, call.getPath(), options.report);
      }
      if (isOver) return;
      isOver = true;
      if (error === undefined) call.end();
      else call.emit('error', grpcFailure(error));
    };
    for (const event of ['cancelled', 'error', 'close']) call.on(event, over);
    try {
      leave = open(call, finish);
    } catch (error) {
      // grpc-js has not done with the call yet.
      queueMicrotask(() => finish(error));
    }
  };
}

async function serveStream(
  call: ServerDuplexStream<unknown, never> | ServerWritableStream<unknown, never>,
  handle: (signal: AbortSignal) => Promise<void>,
  report: ReportFailure | undefined,
): Promise<void> {
  const over = new AbortController();
  for (const event of ['cancelled', 'error', 'close']) call.on(event, () => over.abort(ended));
  try {
    await handle(over.signal);
    if (!over.signal.aborted) call.end();
  } catch (error) {
    // Who reads from a stream that was cut, for a message that is too large for example, has not failed.
    if (!(over.signal.aborted && isCut(error))) reportInternal(error, call.getPath(), report);
    if (!over.signal.aborted) call.emit('error', grpcFailure(error));
  } finally {
    over.abort(ended);
  }
}

function isCut(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_STREAM_PREMATURE_CLOSE';
}

function reportInternal(error: unknown, method: string, report: ReportFailure | undefined): void {
  if (error instanceof MeshError && error.kind !== 'internal') return;
  report?.(error, method);
}

function attempt<T>(make: ((error: unknown) => T) | undefined, error: unknown): T | undefined {
  try {
    return make?.(error);
  } catch {
    return undefined;
  }
}

// Without a reason each abort makes an error with a stack of its own.
const ended = 'ended';

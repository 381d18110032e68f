import { Metadata, status } from '@grpc/grpc-js';
import { type ErrorKind, publicError, errorKinds } from '../errors.ts';

/** The trailing metadata key that carries our own error code. */
export const codeMetadataKey = 'countersign-code';

/** What ends a call: the shape grpc-js takes for `callback` and for the `error` event of a stream. */
export type GrpcFailure = { readonly code: status; readonly details: string; readonly metadata: Metadata };

/**
 * The gRPC status of a kind of failure.
 * @see https://grpc.io/docs/guides/status-codes/
 */
export function statusOf(kind: ErrorKind): status {
  return statuses[kind];
}

/** Any thrown value as the end of a call: public message only, our code in the trailing metadata. */
export function grpcFailure(error: unknown): GrpcFailure {
  const shown = publicError(error);
  const metadata = new Metadata();
  metadata.set(codeMetadataKey, shown.code);
  return { code: statusOf(errorKinds[shown.code]), details: headerText(shown.message), metadata };
}

/** What a client of grpc-js says of a call that had no answer, without the words that it puts around. */
export function plainDetails(details: string): string {
  const [, inner] =
    /^No connection established\. Last error: (?:Error: )?(.*?)\. Resolution note: .*$/s.exec(details) ?? [];
  if (inner !== undefined) return inner;
  const [, seconds] = /^Deadline exceeded after ([\d.]+)s/.exec(details) ?? [];
  return seconds === undefined ? details : `no answer within ${Math.round(Number(seconds))} s`;
}

/**
 * Text that may travel as `grpc-message`: grpc-js puts it through encodeURI, which throws on a lone surrogate, outside
 * of any handler.
 */
function headerText(text: string): string {
  const short = text.length > maxDetails ? `${text.slice(0, maxDetails)}…` : text;
  return short.toWellFormed();
}

const maxDetails = 1_000;

const statuses: Record<ErrorKind, status> = {
  invalid: status.INVALID_ARGUMENT,
  too_large: status.RESOURCE_EXHAUSTED,
  unauthenticated: status.UNAUTHENTICATED,
  forbidden: status.PERMISSION_DENIED,
  not_found: status.NOT_FOUND,
  conflict: status.ABORTED,
  precondition: status.FAILED_PRECONDITION,
  exhausted: status.RESOURCE_EXHAUSTED,
  unavailable: status.UNAVAILABLE,
  internal: status.INTERNAL,
};

import { z } from 'zod';
import { type CallContext, untold } from '../authz/context.ts';
import { headerLinesOf } from '../authz/header-alias.ts';

const address = z.string().max(64);

/** What a proxy could tell: a token travels in a header. More would hold up everybody while rules are tried. */
const maxJsonCharacters = 65_536;
/** Whether a value is at most that long as JSON. */
export const isShort = (value: unknown): boolean =>
  value === undefined || JSON.stringify(value).length <= maxJsonCharacters;
export const tooLong = `more than ${maxJsonCharacters} characters of JSON`;

/** What else is known of a call that somebody asks about; what is left out is not known. */
export const callContextBody = z.strictObject({
  /** All headers of the request, each line by itself. */
  headers: z
    .array(z.tuple([z.string().max(256), z.string().max(8_192)]))
    .max(256)
    .optional(),
  sourceIp: address.optional(),
  remoteIp: address.optional(),
  destinationIp: address.optional(),
  /** Empty: TLS named nothing. */
  sni: z.string().max(255).optional(),
  /** Of a token that was verified; null: there was none. */
  claims: z.record(z.string().max(256), z.unknown()).nullable().optional().refine(isShort, tooLong),
  /** By filter and key. */
  metadata: z
    .record(z.string().max(256), z.record(z.string().max(256), z.unknown()))
    .optional()
    .refine(isShort, tooLong),
});

/** A {@link callContextBody} as the engine takes it. The client is the peer of the connection unless it is named. */
export function readCallContext(body: z.infer<typeof callContextBody> | undefined): CallContext {
  if (body === undefined) return untold;
  const { headers, sourceIp, remoteIp = sourceIp, destinationIp, sni, claims, metadata } = body;
  const lines = headers?.map(([name, value]) => [name.toLowerCase(), value] as const);
  return {
    headerLines: lines && headerLinesOf(lines),
    sourceIp,
    remoteIp,
    destinationIp,
    sni,
    claims: claims === null || claims === undefined ? claims : new Map(Object.entries(claims)),
    metadata:
      metadata &&
      new Map(Object.entries(metadata).map(([filter, keys]) => [filter, new Map(Object.entries(keys))])),
  };
}

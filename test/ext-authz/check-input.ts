import { AttributeContext } from '../../src/wire/authz.ts';
import type { Address } from '../../src/wire/core.ts';
import { field, metadataBytes, type StructInput } from './proto-bytes.ts';

type AddressInput = { readonly host: string; readonly port: number } | { readonly pipe: string } | null;

/** What a test says of a check; the rest is a plain GET from web to orders. */
export type CheckInput = {
  readonly principal?: string;
  readonly certificate?: string;
  readonly sourceAddress?: AddressInput;
  readonly destination?: string;
  readonly destinationAddress?: AddressInput;
  readonly http?: null;
  readonly method?: string;
  readonly path?: string;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly rawHeaders?: readonly (readonly [string, string | Buffer])[];
  /** Name, value as text, value as bytes. */
  readonly tornHeaders?: readonly (readonly [string, string, string])[];
  readonly body?: string;
  readonly metadata?: { readonly [filter: string]: StructInput };
  /** Whether each `SPOIL` in a text becomes five bytes that are not UTF-8. */
  readonly spoil?: true;
  readonly contextExtensions?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  readonly service?: string;
};

/** The bytes of a CheckRequest, as Envoy sends it. */
export function checkBytes(input: CheckInput): Buffer {
  const { service = '', labels = {} } = input;
  const peer = { service, labels: { ...labels }, certificate: '' };
  const from = input.sourceAddress === undefined ? { host: '10.0.0.1', port: 40_000 } : input.sourceAddress;
  const to =
    input.destinationAddress === undefined ? { host: '10.0.0.2', port: 15_443 } : input.destinationAddress;
  const http = {
    id: '1',
    method: input.method ?? 'GET',
    headers: { ...input.headers },
    path: input.path ?? '/orders/1?x=1',
    host: input.host ?? 'orders.shop',
    scheme: 'https',
    query: '',
    fragment: '',
    size: -1n,
    protocol: 'HTTP/2',
    body: input.body ?? '',
    rawBody: Buffer.alloc(0),
    headerMap: {
      headers: [
        ...(input.rawHeaders ?? []).map(([key, value]) => [key, '', value] as const),
        ...(input.tornHeaders ?? []),
      ].map(([key, value, rawValue]) => ({ key, value, rawValue: Buffer.from(rawValue as string) })),
    },
  };
  const attributes: AttributeContext = {
    source: {
      ...peer,
      principal: input.principal ?? 'spiffe://example.org/ns/shop/sa/web',
      certificate: input.certificate ?? '',
      address: address(from),
    },
    destination: {
      ...peer,
      principal: input.destination ?? 'spiffe://example.org/ns/shop/sa/orders',
      address: address(to),
    },
    request: { time: undefined, http: input.http === null ? undefined : http },
    contextExtensions: { ...input.contextExtensions },
    metadataContext: undefined,
    tlsSession: { sni: '' },
    routeMetadataContext: undefined,
  };
  const encoded = AttributeContext.encode(attributes).finish();
  const metadata = input.metadata === undefined ? Buffer.alloc(0) : field(11, metadataBytes(input.metadata));
  const bytes = field(1, Buffer.concat([encoded, metadata]));
  if (!input.spoil) return bytes;
  for (let at = bytes.indexOf('SPOIL'); at !== -1; at = bytes.indexOf('SPOIL')) {
    bytes.set([0xff, 0xfe, 0xc0, 0x80, 0xed], at);
  }
  return bytes;
}

/** PEM as Envoy writes it into `source.certificate`. */
export function encodeCertificate(pem: string): string {
  return encodeURIComponent(pem.endsWith('\n') ? pem : `${pem}\n`);
}

function address(input: AddressInput): Address | undefined {
  if (input === null) return undefined;
  if ('pipe' in input) return { address: { $case: 'pipe', pipe: { path: input.pipe, mode: 0 } } };
  const socketAddress = {
    protocol: 0,
    address: input.host,
    portSpecifier: { $case: 'portValue' as const, portValue: input.port },
  };
  return { address: { $case: 'socketAddress', socketAddress } };
}

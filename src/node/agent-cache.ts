import { createCipheriv, createDecipheriv, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import type { RandomBytes } from '../ca/serial.ts';
import { MeshError, quote } from '../errors.ts';
import type { X509Svid } from '../identity/credentials.ts';
import type { NodeView } from '../identity/view.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { View } from '../wire/node.ts';
import type { NodeIdentity } from './node-client.ts';
import type { KeyPair } from './node-identity.ts';
import { viewFromWire, viewToWire } from './view-wire.ts';

/** What an agent needs to serve without its server. */
export type AgentState = {
  readonly identity: NodeIdentity;
  readonly view: NodeView;
  /** When the server last confirmed the view. */
  readonly freshAt: Date;
  readonly svids: readonly X509Svid[];
  /** What the audit log of the server is verified with, as the server has named it; null while it has not. */
  readonly auditLogKey: string | null;
  /** Grows with each save: a cache of fewer than are known of was put back by somebody. */
  readonly generation: number;
};

/** What the cache is bound to: it opens nowhere else. */
export type CacheBinding = {
  readonly trustDomain: TrustDomain;
  /** Of this machine, such as the text of /etc/machine-id. */
  readonly machineId: string;
  /** 32 random bytes that lie beside the cache. */
  readonly key: Uint8Array;
};

/** Seals a state: AES-256-GCM under a key of this machine, the header as associated data. */
export function sealState(state: AgentState, binding: CacheBinding, randomBytes: RandomBytes): Uint8Array {
  return seal(headerOf(binding.trustDomain), encodeState(state), sealingKey(binding), randomBytes);
}

/**
 * Opens a cache.
 * @throws MeshError `agent_cache_invalid` naming what does not fit
 */
export function openState(bytes: Uint8Array, binding: CacheBinding): AgentState {
  const end = bytes.indexOf(newline);
  const header = Buffer.from(bytes.subarray(0, end + 1));
  const [magic, name] = header.toString('latin1').trimEnd().split(' ');
  if (end === -1 || end > maxHeaderBytes || magic === undefined || name === undefined)
    throw invalid('is damaged');
  if (magic !== currentMagic) throw invalid(`is of another version, ${quote(magic)}`);
  if (name !== binding.trustDomain.name) throw invalid(`is of the trust domain ${quote(name)}`);
  const opened = open(header, bytes, sealingKey(binding));
  try {
    return decodeState(opened);
  } catch (cause) {
    throw invalid('cannot be read', cause);
  }
}

/**
 * Seals the key that evidence is shown with.
 * @param digest of the evidence, lower-case hex
 */
export function sealShownKey(
  digest: string,
  { publicKey, privateKey }: KeyPair,
  binding: GenerationBinding,
  randomBytes: RandomBytes,
): Uint8Array {
  const plain = Buffer.from(JSON.stringify([text(publicKey), text(privateKey)]));
  return seal(shownHeader(digest), plain, shownKey(binding), randomBytes);
}

/** @returns undefined when it is for other evidence, or of elsewhere, or damaged: another one is made then */
export function openShownKey(
  digest: string,
  bytes: Uint8Array,
  binding: GenerationBinding,
): KeyPair | undefined {
  const header = shownHeader(digest);
  if (!header.equals(bytes.subarray(0, header.length))) return undefined;
  try {
    const [publicKey, privateKey] = JSON.parse(open(header, bytes, shownKey(binding)).toString()) as [
      string,
      string,
    ];
    return { publicKey: data(publicKey), privateKey: data(privateKey) };
  } catch {
    return undefined;
  }
}

/** The generation of the cache that was written last, as it lies beside it. */
export function sealGeneration(generation: number, binding: GenerationBinding): Uint8Array {
  const text = `${generationMagic} ${generation}`;
  return Buffer.from(`${text} ${proofOf(text, binding)}\n`, 'latin1');
}

/** @throws MeshError `agent_cache_invalid` when it was made elsewhere, or was changed */
export function openGeneration(bytes: Uint8Array, binding: GenerationBinding): number {
  const [, text, digits, proof] = generationForm.exec(Buffer.from(bytes).toString('latin1')) ?? [];
  if (text === undefined || digits === undefined || proof === undefined) throw invalid('has lost its count');
  if (!timingSafeEqual(Buffer.from(proof), Buffer.from(proofOf(text, binding))))
    throw invalid('has lost its count');
  return Number(digits);
}

/** @throws MeshError `agent_cache_invalid` when the cache is older than the one that was written last */
export function demandLatest(generation: number, known: number | null): void {
  // Without a count it can only be the first one: the count is written after it.
  if (known === null ? generation <= 1 : generation >= known) return;
  throw invalid('is older than the one that was written last: somebody has put it back');
}

type GenerationBinding = Omit<CacheBinding, 'trustDomain'>;

type StoredSvid = {
  readonly [K in keyof X509Svid]: X509Svid[K] extends string
    ? string
    : X509Svid[K] extends readonly Uint8Array[]
      ? readonly string[]
      : string;
};

function seal(header: Buffer, plain: Uint8Array, key: Uint8Array, randomBytes: RandomBytes): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(header);
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([header, nonce, cipher.getAuthTag(), sealed]);
}

/** @throws MeshError `agent_cache_invalid` */
function open(header: Buffer, bytes: Uint8Array, key: Uint8Array): Buffer {
  const nonceEnd = header.length + nonceBytes;
  const tagEnd = nonceEnd + tagBytes;
  if (bytes.length <= tagEnd) throw invalid('is damaged');
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(header.length, nonceEnd), {
    authTagLength: tagBytes,
  });
  decipher.setAAD(header);
  decipher.setAuthTag(bytes.subarray(nonceEnd, tagEnd));
  try {
    return Buffer.concat([decipher.update(bytes.subarray(tagEnd)), decipher.final()]);
  } catch (cause) {
    throw invalid('is of another machine, or damaged', cause);
  }
}

function encodeState({ identity, view, freshAt, svids, auditLogKey, generation }: AgentState): Buffer {
  return Buffer.from(
    JSON.stringify({
      identity: { certificates: identity.certificates.map(text), privateKey: text(identity.privateKey) },
      view: text(View.encode(viewToWire(view)).finish()),
      freshAt: freshAt.toISOString(),
      generation,
      auditLogKey,
      svids: svids.map((svid): StoredSvid => ({
        ...svid,
        id: svid.id.text,
        certificates: svid.certificates.map(text),
        privateKey: text(svid.privateKey),
        notBefore: svid.notBefore.toISOString(),
        notAfter: svid.notAfter.toISOString(),
      })),
    }),
  );
}

function decodeState(bytes: Buffer): AgentState {
  const stored = JSON.parse(bytes.toString('utf8')) as {
    identity: { certificates: string[]; privateKey: string };
    view: string;
    freshAt: string;
    svids: StoredSvid[];
    generation?: number;
    auditLogKey?: string | null;
  };
  return {
    generation: stored.generation ?? 0,
    auditLogKey: stored.auditLogKey ?? null,
    identity: {
      certificates: stored.identity.certificates.map(data),
      privateKey: data(stored.identity.privateKey),
    },
    view: viewFromWire(View.decode(data(stored.view))),
    freshAt: new Date(stored.freshAt),
    svids: stored.svids.map((svid) => ({
      ...svid,
      id: SpiffeId.parseWorkload(svid.id),
      certificates: svid.certificates.map(data),
      privateKey: data(svid.privateKey),
      notBefore: new Date(svid.notBefore),
      notAfter: new Date(svid.notAfter),
    })),
  };
}

function sealingKey({ machineId, key, trustDomain }: CacheBinding): Uint8Array {
  return new Uint8Array(
    hkdfSync('sha256', key, machineId, `countersign agent cache ${trustDomain.name}`, 32),
  );
}

function proofOf(text: string, { machineId, key }: GenerationBinding): string {
  const own = new Uint8Array(hkdfSync('sha256', key, machineId, 'countersign agent cache generation', 32));
  return createHmac('sha256', own).update(text).digest('hex');
}

function shownKey({ machineId, key }: GenerationBinding): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', key, machineId, 'countersign agent shown key', 32));
}

function shownHeader(digest: string): Buffer {
  return Buffer.from(`countersign-agent-shown-1 ${digest}\n`, 'latin1');
}

function headerOf(trustDomain: TrustDomain): Buffer {
  return Buffer.from(`${currentMagic} ${trustDomain.name}\n`, 'latin1');
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}

function data(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'));
}

function invalid(why: string, cause?: unknown): MeshError {
  return new MeshError('agent_cache_invalid', `the sealed cache ${why}`, {
    fix: 'remove it, and attest the node again',
    cause,
  });
}

const currentMagic = 'countersign-agent-cache-1';
const generationMagic = 'countersign-agent-generation-1';
const generationForm = /^((?:countersign-agent-generation-1) ([0-9]{1,15})) ([0-9a-f]{64})\n$/;
const newline = 0x0a;
const maxHeaderBytes = 320;
const nonceBytes = 12;
const tagBytes = 16;

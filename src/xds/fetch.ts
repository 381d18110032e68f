import { MeshError } from '../errors.ts';
import { type Attestation, type Peer, stillHolds } from '../identity/evidence.ts';
import type { DiscoveryRequest } from '../wire/discovery.ts';
import { evidenceOf, nodeIdOf, type PipeParts } from './pipe.ts';
import { excessOf, isGivenStill, lookUp, type SentResponse, versionOf } from './resource.ts';
import { encodeResponse } from './response.ts';
import type { FollowOffers, Offer, RefusalReason, ResourceSource } from './source.ts';

/**
 * Answers one request with what the caller may have now of what it asks for, by the rules of a stream. Where a stream
 * would stay open with nothing to say, this fails, because it has no later answer. A request that names the version it
 * would be sent says that it has it in use; it is sent it all the same.
 * @param signal aborts when the caller gives up
 * @throws MeshError `message_invalid` (another type_url, no names), `resource_names_exceeded`, `attestation_failed`,
 * `identity_none`, `identity_banned`, `credentials_pending` when the certificate is not made in time
 */
export async function fetchOnce(
  request: DiscoveryRequest,
  peer: Peer,
  signal: AbortSignal,
  source: ResourceSource,
  parts: PipeParts & { readonly offerMs: number },
): Promise<Buffer> {
  const { clock, observer, refusals } = parts;
  const names = [...new Set(request.resourceNames)];
  check(request, source.typeUrl);
  const identity = { peer, nodeId: nodeIdOf(request.node) };
  const refuse = (selectors: Attestation['selectors'], reason: Refused, resource: string): void => {
    const texts = selectors.map(({ text }) => text);
    refusals.add({ ...reason, resource, selectors: texts, caller: evidenceOf(peer) });
  };
  const attest = async (): Promise<Attestation> => {
    try {
      return await parts.attest(peer);
    } catch (error) {
      if (!signal.aborted && error instanceof MeshError && error.code === 'attestation_failed') {
        refuse([], { code: 'attestation_failed', message: error.message }, '');
      }
      throw error;
    }
  };

  const attestation = await attest();
  const follow = source.forNode(request.node);
  const following = new Set<() => void>();
  try {
    const offer = await firstOffer(follow, attestation, following, signal, parts);
    const found = names.flatMap((name) => lookUp(name, offer.find) ?? []);
    const missing = names.filter((name) => !found.some((resource) => resource.name === name));
    for (const name of missing) refuse(attestation.selectors, offer.reasonFor(name), name);
    const [first] = missing;
    if (found.length === 0 && first !== undefined) throw refusalOf(offer.reasonFor(first));
    if (found.some(({ holdsKey }) => holdsKey)) {
      const now = await attest();
      if (!parts.isAlive(peer, now) || !stillHolds(attestation, now)) {
        const message = 'the caller has changed since it asked';
        refuse(now.selectors, { code: 'attestation_failed', message }, '');
        throw new MeshError('attestation_failed', message, { fix: 'ask again' });
      }
      // INVARIANT: what was taken away while the caller was attested again does not leave.
      const last = await firstOffer(follow, now, following, signal, parts);
      if (!found.every((resource) => isGivenStill(resource, last.find))) {
        throw new MeshError('credentials_pending', 'what the caller may have has changed meanwhile', {
          fix: 'try again',
        });
      }
    }
    const response: SentResponse = { nonce: '', version: versionOf(found), resources: found, removed: [] };
    if (offer.told !== undefined) return encodeResponse(response, source.typeUrl);
    const isHeld = request.versionInfo === response.version && request.errorDetail === undefined;
    for (const { name, version, content } of found) {
      const what = { ...identity, name, ...(content === undefined ? {} : { content }), at: clock.now() };
      observer.delivering?.(what);
      if (isHeld) observer.acknowledged?.({ ...what, version });
    }
    observer.pushed?.({ ...identity, names: found.map(({ name }) => name), version: response.version });
    return encodeResponse(response, source.typeUrl);
  } finally {
    for (const stop of following) stop();
  }
}

type Refused = RefusalReason | { readonly code: 'attestation_failed'; readonly message: string };

function check({ typeUrl, resourceNames }: DiscoveryRequest, own: string): void {
  if (typeUrl !== '' && typeUrl !== own) {
    throw new MeshError('message_invalid', 'the type_url names another resource type than this service has');
  }
  if (resourceNames.length === 0) throw new MeshError('message_invalid', 'the request asks for no names');
  const excess = excessOf(resourceNames);
  if (excess !== undefined) throw new MeshError('resource_names_exceeded', excess);
}

/**
 * The state of the caller now, for which a certificate may have to be made.
 * @param following what is followed on, so that the certificate stays held until the end
 */
async function firstOffer(
  follow: FollowOffers,
  attestation: Attestation,
  following: Set<() => void>,
  signal: AbortSignal,
  { clock, offerMs }: Pick<PipeParts, 'clock'> & { readonly offerMs: number },
): Promise<Offer> {
  const first = Promise.withResolvers<Offer | undefined>();
  const late = (): void => first.resolve(undefined);
  const given = new AbortController();
  if (signal.aborted) late();
  else signal.addEventListener('abort', late, { once: true });
  void clock.sleep(offerMs, given.signal).then(late);
  const beat = (): void => undefined;
  following.add(follow(attestation, { offered: first.resolve, failed: first.reject, ended: late, beat }));
  try {
    const offer = await first.promise;
    if (offer !== undefined) return offer;
  } finally {
    given.abort();
    signal.removeEventListener('abort', late);
  }
  throw new MeshError('credentials_pending', 'the certificate could not be made in time', {
    fix: 'try again',
  });
}

function refusalOf({ code, message }: RefusalReason): MeshError {
  const fix =
    code === 'identity_none'
      ? 'register the caller, for example with countersign entry create'
      : 'ask an operator, who sees why with `countersign ban list`';
  return new MeshError(code, message, { fix });
}

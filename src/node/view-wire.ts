import { asBuffer } from '../grpc/as-buffer.ts';
import { MeshError } from '../errors.ts';
import { type Ban, banKey, type BanTarget, parseBanTarget } from '../identity/ban.ts';
import { maxTtlSeconds, minTtlSeconds, type RegistrationEntry } from '../identity/entry.ts';
import { parseSelector } from '../identity/selector.ts';
import type { NodeView, OutgoingIssuer, ViewDelta, ViewSettings } from '../identity/view.ts';
import { makeBundle, type TrustBundle } from '../spiffe/bundle.ts';
import { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { isKeyId, type JwtBundle } from '../spiffe/jwt-bundle.ts';
import type * as wire from '../wire/node.ts';
import { policyFromWire, policyRevisionFromWire, policyRevisionToWire, policyToWire } from './policy-wire.ts';
import { rolloutFromWire, rolloutToWire } from './rollout-wire.ts';
import { dateOf, integerOf, required } from './wire-values.ts';

/** A view as it travels. */
export function viewToWire(view: NodeView): wire.View {
  const { mesh } = view;
  return {
    revision: BigInt(view.revision),
    meshRevision: BigInt(mesh.revision),
    settings: settingsToWire(view.settings),
    entries: entriesToWire(mesh.entries),
    policies: [...mesh.policies.values()].map(policyToWire),
    bans: [...mesh.bans.values()].map(banToWire),
    x509Bundle: bundleToWire(view.bundle),
    jwtBundle: jwtBundleToWire(view.jwtBundle),
    revocationLists: { lists: view.crls.map(asBuffer) },
    outgoingIssuers: outgoingToWire(view.outgoing),
    policyRevision: mesh.policyRevision && policyRevisionToWire(mesh.policyRevision),
    policyRollout: mesh.rollout && rolloutToWire(mesh.rollout),
  };
}

/** Entries as they travel. */
export function entriesToWire(entries: ReadonlyMap<string, RegistrationEntry>): wire.Entry[] {
  return [...entries.values()].map(entryToWire);
}

/**
 * A view as it was sent, every part proven again: it may also come from a file.
 * @throws MeshError `view_invalid`
 */
export function viewFromWire(view: wire.View): NodeView {
  return orInvalid(() => {
    const settings = settingsFromWire(required(view.settings, 'settings'));
    const trustDomain = TrustDomain.parse(settings.trustDomain);
    return {
      revision: integerOf(view.revision, 'a revision'),
      mesh: {
        revision: integerOf(view.meshRevision, 'a revision'),
        entries: mapOf(view.entries.map(entryOf(trustDomain)), ({ id }) => id),
        policies: mapOf(view.policies.map(policyFromWire), ({ key }) => key),
        bans: mapOf(view.bans.map(banFromWire), banKey),
        ...(view.policyRevision === undefined
          ? {}
          : { policyRevision: policyRevisionFromWire(view.policyRevision) }),
        ...(view.policyRollout === undefined ? {} : { rollout: rolloutFromWire(view.policyRollout) }),
      },
      bundle: bundleFromWire(required(view.x509Bundle, 'bundle'), trustDomain),
      jwtBundle: jwtBundleFromWire(required(view.jwtBundle, 'JWT bundle'), trustDomain),
      crls: required(view.revocationLists, 'revocation lists').lists.map((der) => new Uint8Array(der)),
      outgoing: outgoingFromWire(view.outgoingIssuers ?? { issuers: [] }),
      settings,
    };
  });
}

/** A delta as it travels. */
export function deltaToWire(delta: ViewDelta): wire.ViewDelta {
  const { bundle, jwtBundle, crls, outgoing, settings } = delta;
  return {
    baseRevision: BigInt(delta.baseRevision),
    revision: BigInt(delta.revision),
    meshRevision: BigInt(delta.meshRevision),
    putEntries: delta.putEntries.map(entryToWire),
    deleteEntries: [...delta.deleteEntries],
    putPolicies: delta.putPolicies.map(policyToWire),
    deletePolicies: [...delta.deletePolicies],
    putBans: delta.putBans.map(banToWire),
    deleteBans: delta.deleteBans.map(({ kind, value }) => ({ kind, value })),
    x509Bundle: bundle && bundleToWire(bundle),
    jwtBundle: jwtBundle && jwtBundleToWire(jwtBundle),
    revocationLists: crls && { lists: crls.map(asBuffer) },
    outgoingIssuers: outgoing && outgoingToWire(outgoing),
    settings: settings && settingsToWire(settings),
    policyRevision: delta.policyRevision && policyRevisionToWire(delta.policyRevision),
    policyRollout: delta.rollout && rolloutToWire(delta.rollout),
  };
}

/**
 * A delta as it was sent.
 * @param trustDomain of the view it changes
 * @throws MeshError `view_invalid`
 */
export function deltaFromWire(delta: wire.ViewDelta, trustDomain: TrustDomain): ViewDelta {
  return orInvalid(() => {
    const settings = delta.settings && settingsFromWire(delta.settings);
    if (settings !== undefined && settings.trustDomain !== trustDomain.name)
      refuse('changes the trust domain');
    return {
      baseRevision: integerOf(delta.baseRevision, 'a revision'),
      revision: integerOf(delta.revision, 'a revision'),
      meshRevision: integerOf(delta.meshRevision, 'a revision'),
      putEntries: delta.putEntries.map(entryOf(trustDomain)),
      deleteEntries: delta.deleteEntries,
      putPolicies: delta.putPolicies.map(policyFromWire),
      deletePolicies: delta.deletePolicies,
      putBans: delta.putBans.map(banFromWire),
      deleteBans: delta.deleteBans.map(targetOf),
      bundle: delta.x509Bundle && bundleFromWire(delta.x509Bundle, trustDomain),
      jwtBundle: delta.jwtBundle && jwtBundleFromWire(delta.jwtBundle, trustDomain),
      crls: delta.revocationLists?.lists.map((der) => new Uint8Array(der)),
      outgoing: delta.outgoingIssuers && outgoingFromWire(delta.outgoingIssuers),
      settings,
      policyRevision: delta.policyRevision && policyRevisionFromWire(delta.policyRevision),
      rollout: delta.policyRollout && rolloutFromWire(delta.policyRollout),
    };
  });
}

/** A bundle as it travels. */
export function bundleToWire({ x509Authorities, sequence }: TrustBundle): wire.X509Bundle {
  return { authorities: x509Authorities.map(asBuffer), sequence: BigInt(sequence) };
}

/** @throws MeshError `bundle_invalid`, `view_invalid` */
export function bundleFromWire(bundle: wire.X509Bundle, trustDomain: TrustDomain): TrustBundle {
  return makeBundle(trustDomain, bundle.authorities, integerOf(bundle.sequence, 'a sequence'));
}

function jwtBundleToWire({ authorities, sequence }: JwtBundle): wire.JwtBundle {
  const keys = authorities.map(({ keyId, publicKey }) => ({ keyId, publicKey: asBuffer(publicKey) }));
  return { keys, sequence: BigInt(sequence) };
}

function jwtBundleFromWire({ keys, sequence }: wire.JwtBundle, trustDomain: TrustDomain): JwtBundle {
  const authorities = keys.map(({ keyId, publicKey }) => {
    if (!isKeyId(keyId)) refuse('has a JWT key without a name');
    return { keyId, publicKey: new Uint8Array(publicKey) };
  });
  return { trustDomain, authorities, sequence: integerOf(sequence, 'a sequence') };
}

function outgoingToWire(outgoing: readonly OutgoingIssuer[]): wire.OutgoingIssuers {
  return { issuers: outgoing.map(({ keyId, urgent, nodes }) => ({ keyId, urgent, nodes: BigInt(nodes) })) };
}

/** Also of a server, or in a cache, that knew of none. */
function outgoingFromWire({ issuers }: wire.OutgoingIssuers): readonly OutgoingIssuer[] {
  return issuers.map(({ keyId, urgent, nodes }) => {
    if (!/^[0-9a-f]{2,128}$/.test(keyId)) refuse('has a CA without a name');
    return { keyId, urgent, nodes: integerOf(nodes, 'a count') };
  });
}

function settingsToWire(settings: ViewSettings): wire.Settings {
  return {
    trustDomain: settings.trustDomain,
    rootNamespace: settings.rootNamespace,
    ttlSeconds: BigInt(settings.ttlSeconds),
    maxStalenessSeconds: BigInt(settings.maxStalenessSeconds),
    auditLogKey: settings.auditLogKey ?? '',
  };
}

function settingsFromWire(settings: wire.Settings): ViewSettings {
  return {
    trustDomain: settings.trustDomain,
    rootNamespace: settings.rootNamespace,
    ttlSeconds: integerOf(settings.ttlSeconds, 'a lifetime'),
    maxStalenessSeconds: integerOf(settings.maxStalenessSeconds, 'a time'),
    ...(settings.auditLogKey === '' ? {} : { auditLogKey: settings.auditLogKey }),
  };
}

function entryToWire(entry: RegistrationEntry): wire.Entry {
  return {
    id: entry.id,
    spiffeId: entry.spiffeId.text,
    selectors: entry.selectors.map(({ text }) => text),
    ttlSeconds: BigInt(entry.ttlSeconds),
    dnsNames: [...entry.dnsNames],
    labels: Object.entries(entry.labels).map(([key, value]) => ({ key, value })),
    hint: entry.hint,
    expiresAtMs: entry.expiresAt === null ? undefined : BigInt(entry.expiresAt.getTime()),
    revision: BigInt(entry.revision),
  };
}

function entryOf(trustDomain: TrustDomain): (entry: wire.Entry) => RegistrationEntry {
  return (entry) => {
    const spiffeId = SpiffeId.parseWorkload(entry.spiffeId);
    if (!spiffeId.memberOf(trustDomain)) refuse('has an entry of another trust domain');
    // INVARIANT: an entry without selectors would match every process.
    if (entry.selectors.length === 0) refuse('has an entry without selectors');
    const ttlSeconds = integerOf(entry.ttlSeconds, 'a lifetime');
    if (ttlSeconds < minTtlSeconds || ttlSeconds > maxTtlSeconds) refuse('has a lifetime out of bounds');
    return {
      id: entry.id,
      spiffeId,
      selectors: entry.selectors.map(parseSelector),
      ttlSeconds,
      dnsNames: entry.dnsNames,
      labels: Object.freeze(
        Object.assign(
          Object.create(null) as Record<string, string>,
          Object.fromEntries(entry.labels.map(({ key, value }) => [key, value])),
        ),
      ),
      hint: entry.hint,
      expiresAt: entry.expiresAtMs === undefined ? null : dateOf(entry.expiresAtMs),
      revision: integerOf(entry.revision, 'a revision'),
    };
  };
}

function banToWire({ kind, value, reason, until, createdAt, revision }: Ban): wire.Ban {
  return {
    target: { kind, value },
    reason,
    untilMs: until === null ? undefined : BigInt(until.getTime()),
    createdAtMs: BigInt(createdAt.getTime()),
    revision: BigInt(revision),
  };
}

function banFromWire(ban: wire.Ban): Ban {
  return {
    ...targetOf(required(ban.target, 'target of a ban')),
    reason: ban.reason,
    until: ban.untilMs === undefined ? null : dateOf(ban.untilMs),
    createdAt: dateOf(ban.createdAtMs),
    actor: { kind: 'system' },
    revision: integerOf(ban.revision, 'a revision'),
  };
}

function targetOf({ kind, value }: wire.BanTarget): BanTarget {
  const target = parseBanTarget(kind, value);
  if (target.value !== value) refuse('has a ban in another form');
  return target;
}

function mapOf<T>(values: readonly T[], keyOf: (value: T) => string): ReadonlyMap<string, T> {
  const map = new Map(values.map((value) => [keyOf(value), value]));
  if (map.size !== values.length) refuse('has something twice');
  return map;
}

/** INVARIANT: a view that cannot be read is refused whole: to leave a ban or a policy out could open a door. */
function orInvalid<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    if (cause.code === 'view_invalid') throw cause;
    throw new MeshError('view_invalid', `what the server sent cannot be read: ${cause.message}`, {
      fix: 'run an agent of the same version as the server',
      cause,
    });
  }
}

function refuse(why: string): never {
  throw new MeshError('view_invalid', `what the server sent ${why}`);
}

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { expect } from 'vitest';
import { type Secret, SPIFFECertValidatorConfig } from '../../src/wire/tls.ts';

/** Of the certificate in a secret; that the key fits it is checked. */
export function serialOf(secret: Secret | undefined): string {
  if (secret?.type?.$case !== 'tlsCertificate') throw new Error('another kind');
  const { certificateChain, privateKey } = secret.type.tlsCertificate;
  if (certificateChain?.specifier?.$case !== 'inlineBytes') throw new Error('not inline');
  if (privateKey?.specifier?.$case !== 'inlineBytes') throw new Error('not inline');
  const leaf = new X509Certificate(certificateChain.specifier.inlineBytes);
  expect(leaf.checkPrivateKey(createPrivateKey(privateKey.specifier.inlineBytes))).toBe(true);
  return leaf.serialNumber.toLowerCase();
}

/** The trust domains of a secret for Envoy's SPIFFE validator. */
export function domainsOf(secret: Secret | undefined): readonly string[] {
  if (secret?.type?.$case !== 'validationContext') throw new Error('another kind');
  const { value } = secret.type.validationContext.customValidatorConfig?.typedConfig ?? {};
  return SPIFFECertValidatorConfig.decode(value ?? Buffer.alloc(0)).trustDomains.map(({ name }) => name);
}

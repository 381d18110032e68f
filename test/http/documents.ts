// Documents as their authors write them.

/** The SPIFFE ID of a service account. */
export const id = (name: string, namespace = 'shop') => `spiffe://example.org/ns/${namespace}/sa/${name}`;
/** A registration entry; `rest` is further fields of its spec. */
export const entry = (name: string, namespace = 'shop', rest = '') =>
  `apiVersion: countersign.dev/v1\nkind: RegistrationEntry\nmetadata: { name: ${name} }\n` +
  `spec: { spiffeId: "${id(name, namespace)}", selectors: ["unix:uid:1000"]${rest} }\n`;
/** A policy that allows nothing. */
export const policy = (name: string, namespace: string) =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n` +
  `metadata: { name: ${name}, namespace: ${namespace} }\nspec: {}\n`;
/** A grant; `subject` is the inside of its mapping, `rest` further fields of its spec. */
export const grant = (name: string, role: string, subject: string, rest = '') =>
  `apiVersion: countersign.dev/v1\nkind: AdminGrant\nmetadata: { name: ${name} }\n` +
  `spec: { subject: { ${subject} }, role: ${role}${rest} }\n`;

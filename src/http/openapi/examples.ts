// What the examples of the document are made of: one pack, told the same way everywhere.

const digest = 'sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0'
const manifestDigest = 'sha256:3e744b9dc39389baf0c5a0660589b8402f3dbb49b89b3e75f2c9355852a3c677'
const publishedAt = '2026-01-31T12:00:00.000Z'

export const written = {
  packId: 'net-policy',
  version: '2.1.0',
  type: 'policy',
  name: 'Network policy',
  description: 'Which hosts a workload may reach',
  author: 'stellaops',
  dependencies: [{ packId: 'net-rules', version: '^1.2.0' }],
  metadata: { minRunnerVersion: '1.5.0', license: 'Apache-2.0', keywords: ['network'] },
}

export const pack = {
  ...written,
  ...{ digest, size: 45_678, mediaType: 'application/vnd.stellaops.pack.content.v1.tar+gzip', manifestDigest },
  ...{ publishedAt, state: 'active', channels: ['latest', 'stable'] },
}

export const summary = {
  ...{ packId: 'net-policy', type: 'policy', name: 'Network policy', description: 'Which hosts a workload may reach' },
  ...{ author: 'stellaops', version: '2.1.0', digest, size: 45_678, publishedAt, state: 'active', versions: 4 },
  ...{ minRunnerVersion: '1.5.0', keywords: ['network'] },
}

export const version = {
  ...{ version: '2.1.0', state: 'active', channels: ['latest', 'stable'], minRunnerVersion: '1.5.0' },
  ...{ digest, size: 45_678, manifestDigest, publishedAt },
}

export const published = { packId: 'net-policy', version: '2.1.0', digest, manifestDigest }

export const tried = {
  valid: false,
  violations: [
    {
      path: 'dependencies.0',
      message: 'no published version of net-rules satisfies ^1.2.0: there is no such pack',
    },
  ],
  ...{ packId: 'net-policy', version: '2.1.0', tag: '2.1.0', digest },
}

export const channel = { packId: 'net-policy', channel: 'stable', version: '2.1.0', manifestDigest }

export const dependent = { packId: 'edge-policy', version: '1.0.0', range: '^2.0.0', optional: false, state: 'active' }

export const lock = {
  lockVersion: 1,
  roots: [{ packId: 'net-rules', version: '^1.2.0' }],
  runner: '1.5.0',
  packs: [
    {
      ...{ packId: 'net-rules', version: '1.4.2', type: 'policy', digest, size: 12_000 },
      ...{ mediaType: 'application/vnd.stellaops.pack.content.v1.tar+gzip', title: 'net-rules-1.4.2.tgz' },
      ...{ manifestDigest, manifestSize: 761, dependencies: [] },
    },
  ],
}

const resolved = { version: '1.4.2', digest, size: 12_000, manifestDigest }

export const tree = {
  ...{ packId: 'net-policy', version: '2.1.0' },
  dependencies: [{ packId: 'net-rules', range: '^1.2.0', resolved, dependencies: [] }],
}

export const referrer = {
  ...{ digest, mediaType: 'application/vnd.oci.image.manifest.v1+json', artifactType: 'application/spdx+json' },
  ...{ size: 761, annotations: { 'org.opencontainers.image.created': '2026-01-31T12:00:00Z' } },
}

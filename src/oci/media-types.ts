/** Media types that carry meaning for the registry. Source: image-spec, media-types.md; docker's image manifest v2.2. */
export const mediaTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerManifestList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  /** A descriptor of nothing: the two bytes `{}`. */
  empty: 'application/vnd.oci.empty.v1+json',
  octetStream: 'application/octet-stream',
} as const

/** type/subtype of RFC 6838, section 4.2, without parameters. */
const grammar = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/

export function isMediaType(text: string): boolean {
  return grammar.test(text)
}

const foreignLayer = /^application\/vnd\.(?:oci\.image\.layer\.nondistributable\.|docker\.image\.rootfs\.foreign\.)/

/** Layers that a client fetches elsewhere and never pushes. */
export function isNonDistributable(mediaType: string): boolean {
  return foreignLayer.test(mediaType)
}

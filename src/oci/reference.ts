import { type Digest, parseDigest } from './digest.ts'

declare const brand: unique symbol

export type Tag = string & { readonly [brand]: 'Tag' }

/** What follows `/manifests/`: a digest where it has a colon (a tag never has one), else a tag. */
export type Reference = { digest: Digest; tag?: undefined } | { digest?: undefined; tag: Tag }

const tagGrammar = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/

/** Source: distribution-spec, "Pulling manifests". */
export function parseTag(text: string): Tag | undefined {
  return tagGrammar.test(text) ? (text as Tag) : undefined
}

export function parseReference(text: string): Reference | undefined {
  if (text.includes(':')) {
    const digest = parseDigest(text)
    return digest && { digest }
  }
  const tag = parseTag(text)
  return tag && { tag }
}

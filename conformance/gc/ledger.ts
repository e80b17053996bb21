/** Something that happened to content or a manifest, for whoever looks for a failure. */
type Event = { at: number; who: string; what: string; subjects: readonly string[] }

/** A manifest as its owner, one client, knows it. `blobs`: the digests it needs. */
export type Entry = {
  repository: string
  digest: string
  bytes: Buffer
  blobs: readonly string[]
  contents: readonly Buffer[]
  /** `unsure`: something about it was asked and not answered, so it may be there or not. */
  state: 'there' | 'deleted' | 'unsure'
}

/**
 * What was asked of a registry and acknowledged. Every manifest and every tag belongs to one client, so what it was told
 * last is how it has to be; blobs belong to everybody.
 */
export class Ledger {
  readonly manifests: Entry[] = []
  /** `repository:tag` to its digest, or `gone`; undefined: not known. */
  readonly tags = new Map<string, string | undefined>()
  /** `pack/version` to the digest of its content. */
  readonly versions = new Map<string, { content: string; state: Entry['state'] }>()
  /** Digests of content whose push was cut off: its object may be there without a row. */
  readonly interrupted = new Set<string>()
  /** How often publishing by the facade was: there the registry makes some of the content, whose digest nobody was told. */
  cutOffPublishing = 0
  readonly counts: Record<string, number> = {}
  private readonly events: Event[] = []
  private readonly started = Date.now()

  note(who: string, what: string, ...subjects: string[]): void {
    this.events.push({ at: Date.now() - this.started, who, what, subjects })
    const [kind = ''] = what.split(':')
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
  }

  private readonly unlinks = new Map<string, number>()

  /** Somebody begins to take content out of a repository; call what it answers when that has ended. */
  unlinking(repository: string, digest: string): () => void {
    const key = `${repository} ${digest}`
    this.unlinks.set(key, Number.POSITIVE_INFINITY)
    return () => this.unlinks.set(key, Date.now())
  }

  /** When content was last taken out of a repository by somebody; infinite while it is being done. */
  unlinkedAt(repository: string, digest: string): number {
    return this.unlinks.get(`${repository} ${digest}`) ?? 0
  }

  /** What is known of these digests (or repositories, tags), in order of time. */
  history(...subjects: string[]): string {
    const told = this.events.filter((event) => event.subjects.some((subject) => subjects.includes(subject)))
    return told
      .map(({ at, who, what, subjects: of }) => `${(at / 1000).toFixed(3)} ${who}: ${what} ${of.join(' ')}`)
      .join('\n')
  }
}

import { FormBrowser, readForm } from '../../demo/dev-login.ts'
import type { EdgeAddress } from './dev-browser.ts'

/** A person at a sign-in page, one step at a time: up to postern's own address on the loopback, and no further. */

const LOOPBACK = 'http://127.0.0.1'
const MAX_PAGES = 10

/** The page's address among what a postern has printed; undefined before it has. */
export function pageAddressIn(output: string): string | undefined {
  return /https:\/\/\S+\/oauth\/auth\?\S+/.exec(output)?.[0]
}

/** Signs in and confirms.
 *  @returns the callback's address, with the code, which nobody has opened yet
 *  @throws when a page refuses */
export async function signInUpToCallback(url: string, edge: EdgeAddress, email: string): Promise<URL> {
  const browser = new FormBrowser({ caFile: edge.caFile, stopAt: isCallback })
  let page = await browser.open(new URL(url))
  for (let step = 0; step < MAX_PAGES && !isCallback(page.url); step++) {
    const form = readForm(page.html)
    if (!form || page.status >= 400) throw new Error(`answered ${page.status}: ${page.html}`)
    page = await browser.submit(page, form, email)
  }
  return page.url
}

export function isCallback(url: URL): boolean {
  return url.href.startsWith(`${LOOPBACK}:`) && url.pathname === '/callback'
}

/** The callback's address of a sign-in page that has been printed, without any answer in it. */
export function callbackOf(url: string): URL {
  return new URL(new URL(url).searchParams.get('redirect_uri')!)
}

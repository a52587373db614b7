"""The browser's side: relay/web/relay.js in Node and in Chromium, and the relay's own page, over connections that are
cut on purpose.

    cutter      a TCP proxy that breaks its connections after so many bytes
    reader.mjs  relay.js in Node: one scenario a run, told as JSON, and what came of it as JSON
    tabs        several tabs of one Chromium
    telling     what the simulated provider has said, as whoever asks for plain JSON gets it
"""

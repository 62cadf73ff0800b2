#!/usr/bin/env python3
"""doc_links.py TREE MAP: follows renames in doc links and backticks of comments."""
import sys,os,re,collections
tree=sys.argv[1]; maps=[l.split() for l in open(sys.argv[2]) if l.strip() and not l.startswith('#')]
bycrate=collections.defaultdict(lambda: collections.defaultdict(set)); byfile=collections.defaultdict(dict); every=collections.defaultdict(set)
for p,o,n in maps:
    c='/'.join(p.split('/')[:2]); bycrate[c][o].add(n); byfile[p][o]=n; every[o].add(n)
# names still defined somewhere in a crate
defs=collections.defaultdict(set)
for d,ds,fs in os.walk(tree):
    ds[:]=[x for x in ds if x not in('target','.git','node_modules','dist')]
    for f in fs:
        if f.endswith('.rs'):
            p=os.path.relpath(os.path.join(d,f),tree); s=open(os.path.join(d,f)).read()
            c='/'.join(p.split('/')[:2])
            for m in re.findall(r'(?m)^\s*(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*(?:struct|enum|trait|type|fn|const|static|mod) (\w+)',s): defs[c].add(m); defs[p].add(m)
changed=0
for d,ds,fs in os.walk(tree):
    ds[:]=[x for x in ds if x not in('target','.git','node_modules','dist')]
    for f in fs:
        if not f.endswith('.rs'): continue
        full=os.path.join(d,f); p=os.path.relpath(full,tree); c='/'.join(p.split('/')[:2]); s=open(full).read()
        uses=set(re.findall(r'\w+',re.sub(r'(?m)^\s*//.*$','',s)))
        def one(word):
            if word in byfile[p]: return byfile[p][word]
            if word in defs[p]: return word
            cand=bycrate[c].get(word,set())
            # imported under its new name in this file
            seen=[n for n in every.get(word,()) if n in uses]
            if len(seen)==1 and word not in uses: return seen[0]
            if len(cand)==1 and word not in defs[c] and word not in uses: return next(iter(cand))
            return word
        def line(l):
            m=re.match(r'(\s*//.*)$',l)
            if not m and '//' in l and re.search(r'`\w',l.split('//',1)[1]):
                a,b=l.split('//',1); return a+'//'+sub(b)
            return sub(l) if m else l
        def sub(t):
            return re.sub(r'`([^`\n]+)`', lambda m:'`'+re.sub(r'\b[A-Za-z_]\w*\b',lambda w:one(w[0]) if re.match(r'[A-Z]',w[0]) or '[`' in t else w[0],m[1])+'`', t)
        n='\n'.join(line(l) for l in s.split('\n'))
        if n!=s: changed+=1; open(full,'w').write(n)
print('files',changed)

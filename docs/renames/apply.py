#!/usr/bin/env python3
"""apply.py TREE MAP: semantic renames with rust-analyzer. MAP lines: PATH OLD NEW (a definition of OLD in PATH)."""
import sys,json,subprocess,os,re,time,threading,queue
tree=os.path.abspath(sys.argv[1]); maps=[l.split() for l in open(sys.argv[2]) if l.strip() and not l.startswith('#')]
p=subprocess.Popen(['rust-analyzer'],cwd=tree,stdin=subprocess.PIPE,stdout=subprocess.PIPE,stderr=subprocess.DEVNULL)
n=0; answers={}; cond=threading.Condition(); status={'quiet':False}
def send(o):
    b=json.dumps(o).encode(); p.stdin.write(b'Content-Length: %d\r\n\r\n'%len(b)+b); p.stdin.flush()
def reader():
    while True:
        h={}
        while True:
            l=p.stdout.readline()
            if not l: return
            l=l.strip()
            if not l: break
            k,v=l.split(b':',1); h[k.lower()]=v.strip()
        m=json.loads(p.stdout.read(int(h[b'content-length'])))
        if 'method' in m and 'id' in m:
            r=None
            if m['method']=='workspace/configuration': r=[conf for _ in m['params']['items']]
            send({'jsonrpc':'2.0','id':m['id'],'result':r})
        elif m.get('method')=='experimental/serverStatus':
            with cond: status['quiet']=m['params'].get('quiescent',False); status['h']=m['params']; cond.notify_all()
        elif 'id' in m:
            with cond: answers[m['id']]=m; cond.notify_all()
conf={'checkOnSave':False,'cargo':{'allTargets':True,'targetDir':os.environ.get('RA_TARGET','target/rust-analyzer'),'buildScripts':{'enable':True}},'procMacro':{'enable':True},'cachePriming':{'enable':False}}
threading.Thread(target=reader,daemon=True).start()
def ask(method,params,timeout=600):
    global n; n+=1; i=n
    send({'jsonrpc':'2.0','id':i,'method':method,'params':params})
    with cond:
        end=time.time()+timeout
        while i not in answers:
            if not cond.wait(end-time.time()): raise TimeoutError(method)
        return answers.pop(i)
uri='file://'+tree
ask('initialize',{'processId':os.getpid(),'rootUri':uri,'capabilities':{'workspace':{'workspaceEdit':{'documentChanges':True,'resourceOperations':['rename']},'configuration':True},'experimental':{'serverStatusNotification':True},'general':{'positionEncodings':['utf-8']}},'initializationOptions':conf,'workspaceFolders':[{'uri':uri,'name':'t'}]})
send({'jsonrpc':'2.0','method':'initialized','params':{}})
t=time.time()
with cond:
    while not status['quiet']:
        if not cond.wait(900): sys.exit('never quiet: %s'%status)
print('ready after %.0f s %s'%(time.time()-t,status.get('h')),flush=True)
opened={}
def text(path): return open(os.path.join(tree,path)).read()
def sync(path):
    u=uri+'/'+path; s=text(path)
    if u in opened:
        opened[u]+=1; send({'jsonrpc':'2.0','method':'textDocument/didChange','params':{'textDocument':{'uri':u,'version':opened[u]},'contentChanges':[{'text':s}]}})
    else:
        opened[u]=1; send({'jsonrpc':'2.0','method':'textDocument/didOpen','params':{'textDocument':{'uri':u,'languageId':'rust','version':1,'text':s}}})
def apply(edit):
    docs={}
    for d in edit.get('documentChanges',[]):
        if 'kind' in d: print('  file op',d); continue
        docs.setdefault(d['textDocument']['uri'],[]).extend(d['edits'])
    for u,e in edit.get('changes',{}).items(): docs.setdefault(u,[]).extend(e)
    for u,edits in docs.items():
        path=u[len(uri)+1:]; b=text(path).encode(); lines=b.split(b'\n'); starts=[0]
        for l in lines: starts.append(starts[-1]+len(l)+1)
        pos=lambda q: starts[q['line']]+q['character']
        for e in sorted(edits,key=lambda e:-pos(e['range']['start'])):
            b=b[:pos(e['range']['start'])]+e['newText'].encode()+b[pos(e['range']['end']):]
        open(os.path.join(tree,path),'wb').write(b); sync(path)
    return len(docs),sum(map(len,docs.values()))
bad=0
for path,old,new in maps:
    s=text(path); m=re.search(r'(?m)^\s*(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*(?:struct|enum|trait|type|fn|const|static|mod) (%s)\b'%re.escape(old),s)
    if not m:
        m=re.search(r'(?m)^\s+(?:pub(?:\([^)]*\))? )?(%s)\s*[:,({]'%re.escape(old),s)
    if not m: print('NOT FOUND',path,old); bad+=1; continue
    sync(path); line=s.count('\n',0,m.start(1)); col=len(s[s.rfind('\n',0,m.start(1))+1:m.start(1)].encode())
    a=ask('textDocument/rename',{'textDocument':{'uri':uri+'/'+path},'position':{'line':line,'character':col},'newName':new})
    if 'error' in a or not a.get('result'): print('FAILED',path,old,new,a.get('error')); bad+=1; continue
    f,e=apply(a['result'])
    # doc links and prose in backticks of the same file
    print('ok %s %s -> %s: %d files, %d edits'%(path,old,new,f,e),flush=True)
print('bad',bad); p.kill()

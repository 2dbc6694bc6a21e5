import asyncio, time, psutil, pytest, aiohttp, signal
from tests.serving.gateway.conftest import World
class TestM:
    @pytest.fixture
    def gateway_environ(self): return {"GATEWAY_TIER": "edge", "GATEWAY_REGION": "cn-beijing"}
    async def test_m(self, gateway: World):
        await gateway.backends("a","b")
        async def lat(url,n=400,rps=20):
            out=[]
            async def one():
                t=time.perf_counter()
                async with gateway.session.post(url,json={"text":"x"},headers={"X-Session-Id":str(n)}) as r: await r.read(); assert r.status==200
                out.append(time.perf_counter()-t)
            async with asyncio.TaskGroup() as g:
                for i in range(n):
                    g.create_task(one()); await asyncio.sleep(1/rps)
            out.sort(); return [round(1000*out[int(len(out)*q)],2) for q in (.5,.9,.99)]
        direct=await lat(f"http://{gateway.subnet}.10:8080/v1/chat")
        via=await lat(gateway.url+"/v1/chat")
        print("\nDIRECT",direct,"VIA",via)
        for n,p in (("envoy",gateway.envoy),("agent",gateway.agent)):
            m=psutil.Process(p.pid).memory_full_info(); c=psutil.Process(p.pid).cpu_times()
            print(n,"rss",m.rss>>20,"uss",m.uss>>20,"pss",m.pss>>20,"cpu",c.user+c.system)
        async with gateway.load(workers=8,at_least=5000) as load:
            t=time.time()
        print("rps",load.total/(time.time()-t),load)
        async with gateway.session.get(f"http://{gateway.ip}:9902/stats/prometheus") as a: txt=await a.text()
        print(len(txt), len(txt.splitlines()), sorted({l.split("{")[0].split(" ")[0] for l in txt.splitlines() if l[0]!="#"}))
        print([l for l in txt.splitlines() if "upstream_rq_xx" in l or "rq_retry" in l or "rq_time_count" in l])

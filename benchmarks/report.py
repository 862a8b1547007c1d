import json
def tables(found):
    out=[]
    for m,r in found["measures"].items():
        out.append("## "+m)
        f=r.get("floor",{})
        for n,x in r.items():
            s=" ".join(f"{k}={v*1e3:.1f}ms" if ("cpu" in k or "wall" in k) else f"{k}={v:,.0f}" for k,v in x.items() if isinstance(v,(int,float)))
            if f.get("cpu_rounds") and x.get("cpu_rounds") and len(f["cpu_rounds"])==len(x["cpu_rounds"]):
                import statistics
                s+=" RATIO %.2f"%statistics.median(a/b for a,b in zip(x["cpu_rounds"],f["cpu_rounds"]))
            if "cpu" not in x and m=="flat": s=json.dumps({k:round(v["cpu"]*1e3,1) for k,v in x.items()})
            out.append(f"{n:18s} {s}")
    return "\n".join(out)
def write(found,folder): pass

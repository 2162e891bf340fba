BEGIN TRANSACTION;
CREATE TABLE conversations (
    tenant_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    messages BLOB NOT NULL,
    used_at REAL NOT NULL,
    PRIMARY KEY (tenant_id, session_id)
) WITHOUT ROWID;
INSERT INTO "conversations" VALUES('default','ended',CAST('[{"role":"user","content":"go"},{"role":"assistant","content":"thinking ","tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{\"city\":\"Rom\"}"}},{"id":"c2","type":"function","function":{"name":"book","arguments":"{\"city\":\"Rom\"}"}}]},{"role":"tool","tool_call_id":"c1","content":"{\"city\":\"Rom\",\"sun\":true,\"degrees\":21.5}"},{"role":"tool","tool_call_id":"c2","content":"booked Rom"},{"role":"assistant","content":"all done"},{"role":"user","content":"fail"},{"role":"user","content":"cancel"},{"role":"assistant","content":"thinking ","tool_calls":[{"id":"call_cancel_c1","type":"function","function":{"name":"look","arguments":"{\"city\":\"Rom\"}"}},{"id":"call_cancel_c2","type":"function","function":{"name":"book","arguments":"{\"city\":\"Rom\"}"}}]},{"role":"tool","tool_call_id":"call_cancel_c1","content":"{\"city\":\"Rom\",\"sun\":true,\"degrees\":21.5}"},{"role":"tool","tool_call_id":"call_cancel_c2","content":"error: the call was cancelled"}]' AS BLOB),1.79590019002433586123e+09);
CREATE TABLE events (
    run INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    event BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
INSERT INTO "events" VALUES(1,0,CAST('{"type":"run_start","data":{"message":"go","session_id":"ended","agent":"travels","parent_run_id":null,"schema":1},"seq":0,"run_id":"go","agent":"root","timestamp":1795900189.9591432}' AS BLOB));
INSERT INTO "events" VALUES(1,1,CAST('{"type":"state_change","data":{"old_status":"initializing","new_status":"running","reason":null},"seq":1,"run_id":"go","agent":"root","timestamp":1795900189.9599288}' AS BLOB));
INSERT INTO "events" VALUES(1,2,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"running","reason":"off"},"seq":2,"run_id":"go","agent":"root","timestamp":1795900189.9599671}' AS BLOB));
INSERT INTO "events" VALUES(1,3,CAST('{"type":"custom","data":{"name":"note","value":{"a":[1,null,"ä"]}},"seq":3,"run_id":"go","agent":"root","timestamp":1795900189.959999}' AS BLOB));
INSERT INTO "events" VALUES(1,4,CAST('{"type":"agent_start","data":{"agent":"root/nested","call_id":null},"seq":4,"run_id":"go","agent":"root/nested","timestamp":1795900189.960018}' AS BLOB));
INSERT INTO "events" VALUES(1,5,CAST('{"type":"message_chunk","data":{"chunk":"nested ","message_id":"m1"},"seq":5,"run_id":"go","agent":"root/nested","timestamp":1795900189.9600787}' AS BLOB));
INSERT INTO "events" VALUES(1,6,CAST('{"type":"message_chunk","data":{"chunk":"wörds","message_id":"m1"},"seq":6,"run_id":"go","agent":"root/nested","timestamp":1795900189.9600883}' AS BLOB));
INSERT INTO "events" VALUES(1,7,CAST('{"type":"message_complete","data":{"message_id":"m1","content":"nested wörds","finish_reason":"stop","usage":null,"model":null},"seq":7,"run_id":"go","agent":"root/nested","timestamp":1795900189.960098}' AS BLOB));
INSERT INTO "events" VALUES(1,8,CAST('{"type":"agent_end","data":{"agent":"root/nested","call_id":null,"outcome":"ok","result":"ok","error":null,"usage":{"prompt_tokens":0,"completion_tokens":0,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"duration":0.00012269499711692333},"seq":8,"run_id":"go","agent":"root/nested","timestamp":1795900189.9601514}' AS BLOB));
INSERT INTO "events" VALUES(1,9,CAST('{"type":"message_chunk","data":{"chunk":"thinking ","message_id":"m2"},"seq":9,"run_id":"go","agent":"root","timestamp":1795900189.9603906}' AS BLOB));
INSERT INTO "events" VALUES(1,10,CAST('{"type":"tool_call_args","data":{"call_id":"c1","tool_name":"look","delta":"{\"city\"","message_id":"m2"},"seq":10,"run_id":"go","agent":"root","timestamp":1795900189.9604347}' AS BLOB));
INSERT INTO "events" VALUES(1,11,CAST('{"type":"tool_call_args","data":{"call_id":"c1","tool_name":"look","delta":": \"Rom\"}","message_id":"m2"},"seq":11,"run_id":"go","agent":"root","timestamp":1795900189.960459}' AS BLOB));
INSERT INTO "events" VALUES(1,12,CAST('{"type":"tool_call_args","data":{"call_id":"c2","tool_name":"book","delta":"{\"city\"","message_id":"m2"},"seq":12,"run_id":"go","agent":"root","timestamp":1795900189.960479}' AS BLOB));
INSERT INTO "events" VALUES(1,13,CAST('{"type":"tool_call_args","data":{"call_id":"c2","tool_name":"book","delta":": \"Rom\"}","message_id":"m2"},"seq":13,"run_id":"go","agent":"root","timestamp":1795900189.9605005}' AS BLOB));
INSERT INTO "events" VALUES(1,14,CAST('{"type":"message_complete","data":{"message_id":"m2","content":"thinking ","finish_reason":"tool_calls","usage":{"prompt_tokens":10,"completion_tokens":5,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"model":null},"seq":14,"run_id":"go","agent":"root","timestamp":1795900189.9605975}' AS BLOB));
INSERT INTO "events" VALUES(1,15,CAST('{"type":"approval_required","data":{"call_id":"c2","tool_name":"book","arguments":{"city":"Rom"},"deadline":300.0},"seq":15,"run_id":"go","agent":"root","timestamp":1795900189.9607303}' AS BLOB));
INSERT INTO "events" VALUES(1,16,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"waiting_for_approval","reason":null},"seq":16,"run_id":"go","agent":"root","timestamp":1795900189.960739}' AS BLOB));
INSERT INTO "events" VALUES(1,17,CAST('{"type":"tool_call_start","data":{"call_id":"c1","tool_name":"look","arguments":{"city":"Rom"},"message_id":"m2","provider_executed":false},"seq":17,"run_id":"go","agent":"root","timestamp":1795900189.9607937}' AS BLOB));
INSERT INTO "events" VALUES(1,18,CAST('{"type":"tool_progress","data":{"call_id":"c1","tool_name":"look","progress":{"seen":1}},"seq":18,"run_id":"go","agent":"root","timestamp":1795900189.9608479}' AS BLOB));
INSERT INTO "events" VALUES(1,19,CAST('{"type":"tool_call_end","data":{"call_id":"c1","tool_name":"look","outcome":"ok","result":{"city":"Rom","sun":true,"degrees":21.5},"error":null,"duration":0.0000835060200188309},"seq":19,"run_id":"go","agent":"root","timestamp":1795900189.960886}' AS BLOB));
INSERT INTO "events" VALUES(1,20,CAST('{"type":"tool_call_start","data":{"call_id":"c2","tool_name":"book","arguments":{"city":"Rom"},"message_id":"m2","provider_executed":false},"seq":20,"run_id":"go","agent":"root","timestamp":1795900189.97024}' AS BLOB));
INSERT INTO "events" VALUES(1,21,CAST('{"type":"state_change","data":{"old_status":"waiting_for_approval","new_status":"running","reason":null},"seq":21,"run_id":"go","agent":"root","timestamp":1795900189.9702814}' AS BLOB));
INSERT INTO "events" VALUES(1,22,CAST('{"type":"tool_call_end","data":{"call_id":"c2","tool_name":"book","outcome":"ok","result":"booked Rom","error":null,"duration":0.00009878899436444044},"seq":22,"run_id":"go","agent":"root","timestamp":1795900189.9703684}' AS BLOB));
INSERT INTO "events" VALUES(1,23,CAST('{"type":"message_chunk","data":{"chunk":"all ","message_id":"m3"},"seq":23,"run_id":"go","agent":"root","timestamp":1795900189.970768}' AS BLOB));
INSERT INTO "events" VALUES(1,24,CAST('{"type":"message_chunk","data":{"chunk":"done","message_id":"m3"},"seq":24,"run_id":"go","agent":"root","timestamp":1795900189.9707873}' AS BLOB));
INSERT INTO "events" VALUES(1,25,CAST('{"type":"message_complete","data":{"message_id":"m3","content":"all done","finish_reason":"stop","usage":{"prompt_tokens":10,"completion_tokens":5,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"model":null},"seq":25,"run_id":"go","agent":"root","timestamp":1795900189.9708652}' AS BLOB));
INSERT INTO "events" VALUES(1,26,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"completed","reason":null},"seq":26,"run_id":"go","agent":"root","timestamp":1795900189.9758723}' AS BLOB));
INSERT INTO "events" VALUES(1,27,CAST('{"type":"done","data":{"status":"completed","reason":null,"result":"all done","usage":{"prompt_tokens":20,"completion_tokens":10,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"events":28,"duration":0.016758979996666312,"leftover":[]},"seq":27,"run_id":"go","agent":"root","timestamp":1795900189.975897}' AS BLOB));
INSERT INTO "events" VALUES(2,0,CAST('{"type":"run_start","data":{"message":"fail","session_id":"ended","agent":"travels","parent_run_id":null,"schema":1},"seq":0,"run_id":"fail","agent":"root","timestamp":1795900189.991561}' AS BLOB));
INSERT INTO "events" VALUES(2,1,CAST('{"type":"state_change","data":{"old_status":"initializing","new_status":"running","reason":null},"seq":1,"run_id":"fail","agent":"root","timestamp":1795900189.9921172}' AS BLOB));
INSERT INTO "events" VALUES(2,2,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"running","reason":"off"},"seq":2,"run_id":"fail","agent":"root","timestamp":1795900189.9921565}' AS BLOB));
INSERT INTO "events" VALUES(2,3,CAST('{"type":"custom","data":{"name":"note","value":{"a":[1,null,"ä"]}},"seq":3,"run_id":"fail","agent":"root","timestamp":1795900189.992187}' AS BLOB));
INSERT INTO "events" VALUES(2,4,CAST('{"type":"agent_start","data":{"agent":"root/nested","call_id":null},"seq":4,"run_id":"fail","agent":"root/nested","timestamp":1795900189.9922073}' AS BLOB));
INSERT INTO "events" VALUES(2,5,CAST('{"type":"message_chunk","data":{"chunk":"nested ","message_id":"m1"},"seq":5,"run_id":"fail","agent":"root/nested","timestamp":1795900189.992258}' AS BLOB));
INSERT INTO "events" VALUES(2,6,CAST('{"type":"message_chunk","data":{"chunk":"wörds","message_id":"m1"},"seq":6,"run_id":"fail","agent":"root/nested","timestamp":1795900189.9922655}' AS BLOB));
INSERT INTO "events" VALUES(2,7,CAST('{"type":"message_complete","data":{"message_id":"m1","content":"nested wörds","finish_reason":"stop","usage":null,"model":null},"seq":7,"run_id":"fail","agent":"root/nested","timestamp":1795900189.992274}' AS BLOB));
INSERT INTO "events" VALUES(2,8,CAST('{"type":"agent_end","data":{"agent":"root/nested","call_id":null,"outcome":"ok","result":"ok","error":null,"usage":{"prompt_tokens":0,"completion_tokens":0,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"duration":0.00009782699635252357},"seq":8,"run_id":"fail","agent":"root/nested","timestamp":1795900189.9923148}' AS BLOB));
INSERT INTO "events" VALUES(2,9,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"error","reason":"agent_failed"},"seq":9,"run_id":"fail","agent":"root","timestamp":1795900189.9969673}' AS BLOB));
INSERT INTO "events" VALUES(2,10,CAST('{"type":"error","data":{"error":"RuntimeError: no way","code":"agent_failed","source":"agent","retryable":false,"deadline":null,"limit":null,"detail":null,"causes":[]},"seq":10,"run_id":"fail","agent":"root","timestamp":1795900189.9969969}' AS BLOB));
INSERT INTO "events" VALUES(2,11,CAST('{"type":"done","data":{"status":"error","reason":"agent_failed","result":null,"usage":{"prompt_tokens":0,"completion_tokens":0,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"events":12,"duration":0.005453096004202962,"leftover":[]},"seq":11,"run_id":"fail","agent":"root","timestamp":1795900189.9970067}' AS BLOB));
INSERT INTO "events" VALUES(3,0,CAST('{"type":"run_start","data":{"message":"cancel","session_id":"ended","agent":"travels","parent_run_id":null,"schema":1},"seq":0,"run_id":"cancel","agent":"root","timestamp":1795900190.0129797}' AS BLOB));
INSERT INTO "events" VALUES(3,1,CAST('{"type":"state_change","data":{"old_status":"initializing","new_status":"running","reason":null},"seq":1,"run_id":"cancel","agent":"root","timestamp":1795900190.0134697}' AS BLOB));
INSERT INTO "events" VALUES(3,2,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"running","reason":"off"},"seq":2,"run_id":"cancel","agent":"root","timestamp":1795900190.0135105}' AS BLOB));
INSERT INTO "events" VALUES(3,3,CAST('{"type":"custom","data":{"name":"note","value":{"a":[1,null,"ä"]}},"seq":3,"run_id":"cancel","agent":"root","timestamp":1795900190.0135446}' AS BLOB));
INSERT INTO "events" VALUES(3,4,CAST('{"type":"agent_start","data":{"agent":"root/nested","call_id":null},"seq":4,"run_id":"cancel","agent":"root/nested","timestamp":1795900190.0135658}' AS BLOB));
INSERT INTO "events" VALUES(3,5,CAST('{"type":"message_chunk","data":{"chunk":"nested ","message_id":"m1"},"seq":5,"run_id":"cancel","agent":"root/nested","timestamp":1795900190.013874}' AS BLOB));
INSERT INTO "events" VALUES(3,6,CAST('{"type":"message_chunk","data":{"chunk":"wörds","message_id":"m1"},"seq":6,"run_id":"cancel","agent":"root/nested","timestamp":1795900190.0138834}' AS BLOB));
INSERT INTO "events" VALUES(3,7,CAST('{"type":"message_complete","data":{"message_id":"m1","content":"nested wörds","finish_reason":"stop","usage":null,"model":null},"seq":7,"run_id":"cancel","agent":"root/nested","timestamp":1795900190.013895}' AS BLOB));
INSERT INTO "events" VALUES(3,8,CAST('{"type":"agent_end","data":{"agent":"root/nested","call_id":null,"outcome":"ok","result":"ok","error":null,"usage":{"prompt_tokens":0,"completion_tokens":0,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"duration":0.00038285498158074915},"seq":8,"run_id":"cancel","agent":"root/nested","timestamp":1795900190.0139606}' AS BLOB));
INSERT INTO "events" VALUES(3,9,CAST('{"type":"message_chunk","data":{"chunk":"thinking ","message_id":"m2"},"seq":9,"run_id":"cancel","agent":"root","timestamp":1795900190.0142279}' AS BLOB));
INSERT INTO "events" VALUES(3,10,CAST('{"type":"tool_call_args","data":{"call_id":"c1","tool_name":"look","delta":"{\"city\"","message_id":"m2"},"seq":10,"run_id":"cancel","agent":"root","timestamp":1795900190.014269}' AS BLOB));
INSERT INTO "events" VALUES(3,11,CAST('{"type":"tool_call_args","data":{"call_id":"c1","tool_name":"look","delta":": \"Rom\"}","message_id":"m2"},"seq":11,"run_id":"cancel","agent":"root","timestamp":1795900190.0142915}' AS BLOB));
INSERT INTO "events" VALUES(3,12,CAST('{"type":"tool_call_args","data":{"call_id":"c2","tool_name":"book","delta":"{\"city\"","message_id":"m2"},"seq":12,"run_id":"cancel","agent":"root","timestamp":1795900190.0143049}' AS BLOB));
INSERT INTO "events" VALUES(3,13,CAST('{"type":"tool_call_args","data":{"call_id":"c2","tool_name":"book","delta":": \"Rom\"}","message_id":"m2"},"seq":13,"run_id":"cancel","agent":"root","timestamp":1795900190.014318}' AS BLOB));
INSERT INTO "events" VALUES(3,14,CAST('{"type":"message_complete","data":{"message_id":"m2","content":"thinking ","finish_reason":"tool_calls","usage":{"prompt_tokens":10,"completion_tokens":5,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"model":null},"seq":14,"run_id":"cancel","agent":"root","timestamp":1795900190.0143988}' AS BLOB));
INSERT INTO "events" VALUES(3,15,CAST('{"type":"approval_required","data":{"call_id":"c2","tool_name":"book","arguments":{"city":"Rom"},"deadline":300.0},"seq":15,"run_id":"cancel","agent":"root","timestamp":1795900190.0145116}' AS BLOB));
INSERT INTO "events" VALUES(3,16,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"waiting_for_approval","reason":null},"seq":16,"run_id":"cancel","agent":"root","timestamp":1795900190.0145192}' AS BLOB));
INSERT INTO "events" VALUES(3,17,CAST('{"type":"tool_call_start","data":{"call_id":"c1","tool_name":"look","arguments":{"city":"Rom"},"message_id":"m2","provider_executed":false},"seq":17,"run_id":"cancel","agent":"root","timestamp":1795900190.0145679}' AS BLOB));
INSERT INTO "events" VALUES(3,18,CAST('{"type":"tool_progress","data":{"call_id":"c1","tool_name":"look","progress":{"seen":1}},"seq":18,"run_id":"cancel","agent":"root","timestamp":1795900190.0146134}' AS BLOB));
INSERT INTO "events" VALUES(3,19,CAST('{"type":"tool_call_end","data":{"call_id":"c1","tool_name":"look","outcome":"ok","result":{"city":"Rom","sun":true,"degrees":21.5},"error":null,"duration":0.00007188800373114645},"seq":19,"run_id":"cancel","agent":"root","timestamp":1795900190.0146468}' AS BLOB));
INSERT INTO "events" VALUES(3,20,CAST('{"type":"tool_call_end","data":{"call_id":"c2","tool_name":"book","outcome":"cancelled","result":null,"error":null,"duration":null},"seq":20,"run_id":"cancel","agent":"root","timestamp":1795900190.023902}' AS BLOB));
INSERT INTO "events" VALUES(3,21,CAST('{"type":"state_change","data":{"old_status":"waiting_for_approval","new_status":"cancelled","reason":"enough"},"seq":21,"run_id":"cancel","agent":"root","timestamp":1795900190.0292444}' AS BLOB));
INSERT INTO "events" VALUES(3,22,CAST('{"type":"done","data":{"status":"cancelled","reason":"enough","result":null,"usage":{"prompt_tokens":10,"completion_tokens":5,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"events":23,"duration":0.016300886985845864,"leftover":[]},"seq":22,"run_id":"cancel","agent":"root","timestamp":1795900190.0292735}' AS BLOB));
INSERT INTO "events" VALUES(4,0,CAST('{"type":"run_start","data":{"message":"cut","session_id":"cut","agent":"travels","parent_run_id":null,"schema":1},"seq":0,"run_id":"cut","agent":"root","timestamp":1795900190.0397344}' AS BLOB));
INSERT INTO "events" VALUES(4,1,CAST('{"type":"state_change","data":{"old_status":"initializing","new_status":"running","reason":null},"seq":1,"run_id":"cut","agent":"root","timestamp":1795900190.042297}' AS BLOB));
INSERT INTO "events" VALUES(4,2,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"running","reason":"off"},"seq":2,"run_id":"cut","agent":"root","timestamp":1795900190.042329}' AS BLOB));
INSERT INTO "events" VALUES(4,3,CAST('{"type":"custom","data":{"name":"note","value":{"a":[1,null,"ä"]}},"seq":3,"run_id":"cut","agent":"root","timestamp":1795900190.042358}' AS BLOB));
INSERT INTO "events" VALUES(4,4,CAST('{"type":"agent_start","data":{"agent":"root/nested","call_id":null},"seq":4,"run_id":"cut","agent":"root/nested","timestamp":1795900190.0423746}' AS BLOB));
INSERT INTO "events" VALUES(4,5,CAST('{"type":"message_chunk","data":{"chunk":"nested ","message_id":"m1"},"seq":5,"run_id":"cut","agent":"root/nested","timestamp":1795900190.0424314}' AS BLOB));
INSERT INTO "events" VALUES(4,6,CAST('{"type":"message_chunk","data":{"chunk":"wörds","message_id":"m1"},"seq":6,"run_id":"cut","agent":"root/nested","timestamp":1795900190.0424387}' AS BLOB));
INSERT INTO "events" VALUES(4,7,CAST('{"type":"message_complete","data":{"message_id":"m1","content":"nested wörds","finish_reason":"stop","usage":null,"model":null},"seq":7,"run_id":"cut","agent":"root/nested","timestamp":1795900190.0424495}' AS BLOB));
INSERT INTO "events" VALUES(4,8,CAST('{"type":"agent_end","data":{"agent":"root/nested","call_id":null,"outcome":"ok","result":"ok","error":null,"usage":{"prompt_tokens":0,"completion_tokens":0,"reasoning_tokens":0,"cached_tokens":0,"quality":"measured","cost":null},"duration":0.00010766199557110667},"seq":8,"run_id":"cut","agent":"root/nested","timestamp":1795900190.0424922}' AS BLOB));
INSERT INTO "events" VALUES(4,9,CAST('{"type":"message_chunk","data":{"chunk":"half a ","message_id":"m2"},"seq":9,"run_id":"cut","agent":"root","timestamp":1795900190.042543}' AS BLOB));
INSERT INTO "events" VALUES(4,10,CAST('{"type":"input_required","data":{"request_id":"q1","prompt":"who?"},"seq":10,"run_id":"cut","agent":"root","timestamp":1795900190.042556}' AS BLOB));
INSERT INTO "events" VALUES(4,11,CAST('{"type":"state_change","data":{"old_status":"running","new_status":"waiting_for_input","reason":null},"seq":11,"run_id":"cut","agent":"root","timestamp":1795900190.0425642}' AS BLOB));
INSERT INTO "events" VALUES(5,0,CAST('{"type":"run_start","data":{"message":"waits","session_id":"cut","agent":"travels","parent_run_id":null,"schema":1},"seq":0,"run_id":"waits","agent":"root","timestamp":1795900190.045155}' AS BLOB));
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    session_id TEXT,
    agent TEXT NOT NULL,
    message TEXT NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    status TEXT,
    owner TEXT,
    last INTEGER NOT NULL DEFAULT -1,
    is_remembered INTEGER NOT NULL DEFAULT 0,
    untold INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant_id, run_id)
);
INSERT INTO "runs" VALUES(1,'default','go','ended','travels','go',1.79590018995228028293e+09,1.79590018997589707374e+09,'completed','2a685763a175526d',27,1,0);
INSERT INTO "runs" VALUES(2,'default','fail','ended','travels','fail',1.79590018998634767528e+09,1.79590018999700665475e+09,'error','2a685763a175526d',11,1,0);
INSERT INTO "runs" VALUES(3,'default','cancel','ended','travels','cancel',1.79590019000794577598e+09,1.79590019002927350991e+09,'cancelled','2a685763a175526d',22,1,0);
INSERT INTO "runs" VALUES(4,'default','cut','cut','travels','cut',1.79590019003467702861e+09,NULL,NULL,'2a685763a175526d',11,1,1);
INSERT INTO "runs" VALUES(5,'default','waits','cut','travels','waits',1.79590019004196333883e+09,NULL,NULL,'2a685763a175526d',0,1,1);
CREATE INDEX runs_of_session ON runs (tenant_id, session_id);
CREATE INDEX runs_by_end ON runs (ended_at);
COMMIT;
PRAGMA user_version = 2;
